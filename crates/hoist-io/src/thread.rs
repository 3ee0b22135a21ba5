//! A thread that drives one backend.

use crate::backend::{FileOp, FileReply, open};
use crate::driver::{Command, Driver};
use crate::{Backend, Completion, Config, Error, Obtained, Priority, Request, RequestId, Waker};
use crossbeam_channel::{Receiver, Sender, bounded, select};
use hoist_memory::Slab;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Commands that may wait to be taken: more than a plan has requests under way (its credits are a few times the queue
/// depth), so that pushing does not wait unless the thread is in a file operation.
const COMMANDS_MAX: usize = 4096;

/// One thread, one backend: for one NVMe directory. Used from any thread. Dropping it closes it.
pub struct IoThread {
    commands: Sender<Command>,
    waker: Waker,
    /// As it was at the start, for when the thread has stopped.
    obtained: Obtained,
    /// Disconnected when the thread has ended: a command that was not taken stays in its channel, and so does the
    /// sender of the answer to it.
    ended: Receiver<()>,
    handle: Option<JoinHandle<Result<(), Error>>>,
}

impl IoThread {
    /// Starts the thread and opens the backend on it. `deliver` gets a completion for every request that is pushed, once
    /// each, on that thread; it must not wait for what only this thread can do. When the backend fails or panics, or
    /// `deliver` does, the thread stays until it is closed, and answers what is under way and what is pushed later with
    /// [`Error::Stopped`].
    ///
    /// # Errors
    /// Those of [`open`], or when the kernel refuses a thread.
    pub fn spawn(
        name: &str,
        config: &Config,
        slab: Arc<Slab>,
        deliver: impl FnMut(Completion) + Send + 'static,
    ) -> Result<IoThread, Error> {
        let config = config.clone();
        IoThread::spawn_with(name, move || open(&config, &slab), deliver)
    }

    /// Like [`IoThread::spawn`], with a backend of the caller's making: `open` is called on the thread.
    ///
    /// # Errors
    /// Those of `open`, or when the kernel refuses a thread.
    pub fn spawn_with(
        name: &str,
        open: impl FnOnce() -> Result<Box<dyn Backend>, Error> + Send + 'static,
        deliver: impl FnMut(Completion) + Send + 'static,
    ) -> Result<IoThread, Error> {
        let (commands, receiver) = bounded(COMMANDS_MAX);
        let (opened_sender, opened) = bounded(1);
        let (alive, ended) = bounded(0);
        let drive = move || {
            let _alive: Sender<()> = alive;
            let backend = match open() {
                Ok(backend) => backend,
                Err(error) => {
                    // The receiver waits below; if it is gone, so is everybody who would care.
                    let _ = opened_sender.send(Err(error));
                    return Ok(());
                }
            };
            let _ = opened_sender.send(Ok((backend.waker(), backend.obtained().clone())));
            Driver::new(backend, receiver, deliver).run()
        };
        let handle = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(drive)
            .map_err(|source| Error::Call { call: "starting an I/O thread", source })?;
        let (waker, obtained) = opened.recv().unwrap_or_else(|_| Err(stopped()))?;
        Ok(IoThread { commands, waker, obtained, ended, handle: Some(handle) })
    }

    /// Queues a request; see [`Backend::push`]. Waits only while 4096 commands wait to be taken. A request whose id is
    /// under way comes back with [`Error::DuplicateId`].
    pub fn push(&self, request: Request) {
        self.send(Command::Push(request));
    }

    /// See [`Backend::promote`].
    pub fn promote(&self, id: RequestId, priority: Priority) {
        self.send(Command::Promote(id, priority));
    }

    /// See [`Backend::abandon`].
    pub fn abandon(&self, id: RequestId) {
        self.send(Command::Abandon(id));
    }

    /// Does a file operation on the thread and waits for it; see [`Backend::file`]. Not to be called from `deliver`.
    ///
    /// # Errors
    /// Those of [`Backend::file`]; [`Error::Stopped`] when the thread has ended.
    pub fn file(&self, op: FileOp) -> Result<FileReply, Error> {
        self.ask(|reply| Command::File(op, reply)).unwrap_or_else(|| Err(stopped()))
    }

    /// What the machine gave, up to now. Not to be called from `deliver`.
    #[must_use]
    pub fn obtained(&self) -> Obtained {
        self.ask(Command::Obtained).unwrap_or_else(|| self.obtained.clone())
    }

    /// The answer to a command; None when the thread has ended.
    fn ask<Answer>(&self, command: impl FnOnce(Sender<Answer>) -> Command) -> Option<Answer> {
        let (reply, answer) = bounded(1);
        self.send(command(reply));
        select! {
            recv(answer) -> answer => answer.ok(),
            recv(self.ended) -> _ => answer.try_recv().ok(),
        }
    }

    /// Finishes and delivers everything that was pushed, and ends the thread.
    ///
    /// # Errors
    /// [`Error::NotDrained`] when the drive gives no sign of life: the memory in flight is leaked, and its requests are
    /// answered without it. [`Error::Stopped`] when the thread had failed before.
    pub fn close(mut self) -> Result<(), Error> {
        self.end()
    }

    fn end(&mut self) -> Result<(), Error> {
        let Some(handle) = self.handle.take() else { return Ok(()) };
        self.send(Command::Close);
        handle.join().unwrap_or_else(|_| Err(stopped()))
    }

    fn send(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::error!("a command for an I/O thread that has ended");
        }
        self.waker.wake();
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "an I/O thread was dropped");
        }
    }
}

fn stopped() -> Error {
    Error::Stopped { cause: "the thread panicked; its message is on stderr".to_owned() }
}

//! A thread that drives one backend.

use crate::backend::{FileOp, FileReply, Wait, open};
use crate::config::CLOSE_DEADLINE;
use crate::{Backend, Completion, Config, Error, Obtained, Priority, Request, RequestId, Waker};
use crossbeam_channel::{Receiver, Sender, bounded, select};
use hoist_memory::Slab;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Commands that may wait to be taken: more than a plan has requests under way (its credits are a few times the queue
/// depth), so that pushing does not wait unless the thread is in a file operation.
const COMMANDS_MAX: usize = 4096;

enum Command {
    Push(Request),
    Promote(RequestId, Priority),
    Abandon(RequestId),
    File(FileOp, Sender<Result<FileReply, Error>>),
    Obtained(Sender<Obtained>),
    Close,
}

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
    /// Starts the thread and opens the backend on it. `deliver` gets every completion, on that thread; it must not
    /// wait for what only this thread can do.
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
            Driver { backend, commands: receiver, deliver, done: Vec::new() }.run()
        };
        let handle = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(drive)
            .map_err(|source| Error::Call { call: "starting an I/O thread", source })?;
        let (waker, obtained) = opened.recv().unwrap_or_else(|_| Err(stopped()))?;
        Ok(IoThread { commands, waker, obtained, ended, handle: Some(handle) })
    }

    /// Queues a request; see [`Backend::push`]. Waits only while 4096 commands wait to be taken.
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
    /// [`Error::NotDrained`] when the drive gives no sign of life: the memory in flight is leaked. [`Error::Stopped`]
    /// when the thread had failed before.
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

struct Driver<Deliver> {
    backend: Box<dyn Backend>,
    commands: Receiver<Command>,
    deliver: Deliver,
    done: Vec<Completion>,
}

impl<Deliver: FnMut(Completion)> Driver<Deliver> {
    fn run(mut self) -> Result<(), Error> {
        let error = loop {
            // Before waiting: a command that comes after this look has its wake before it, so the wait ends at once.
            while let Ok(command) = self.commands.try_recv() {
                if !self.obey(command) {
                    return self.drain(CLOSE_DEADLINE);
                }
            }
            if let Err(error) = self.backend.reap(Wait::UntilSomething, &mut self.done) {
                break error;
            }
            self.deliver_done();
        };
        tracing::error!(%error, "an I/O thread has stopped");
        let cause = error.to_string();
        // Gives back what was only queued; what is in flight is leaked when the backend is dropped.
        let _ = self.drain(Duration::ZERO);
        self.refuse(&cause);
        Err(Error::Stopped { cause })
    }

    /// Whether to go on.
    fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Push(request) => self.backend.push(request),
            Command::Promote(id, priority) => self.backend.promote(id, priority),
            Command::Abandon(id) => self.backend.abandon(id),
            // Whoever asked may have gone.
            Command::File(op, reply) => drop(reply.send(self.backend.file(op))),
            Command::Obtained(reply) => drop(reply.send(self.backend.obtained().clone())),
            Command::Close => return false,
        }
        true
    }

    fn deliver_done(&mut self) {
        for completion in self.done.drain(..) {
            (self.deliver)(completion);
        }
    }

    fn drain(&mut self, deadline: Duration) -> Result<(), Error> {
        let drained = self.backend.drain(deadline, &mut self.done);
        self.deliver_done();
        drained
    }

    /// Answers everything with why it cannot be done, until closed.
    fn refuse(&mut self, cause: &str) {
        let error = || Error::Stopped { cause: cause.to_owned() };
        while let Ok(command) = self.commands.recv() {
            match command {
                Command::Push(Request { id, transfer, ranges, .. }) => {
                    (self.deliver)(Completion { id, transfer, ranges, result: Err(error()), seconds_ns: 0 });
                }
                Command::Promote(..) | Command::Abandon(_) => {}
                Command::File(_, reply) => drop(reply.send(Err(error()))),
                Command::Obtained(reply) => drop(reply.send(self.backend.obtained().clone())),
                Command::Close => return,
            }
        }
    }
}

//! What an I/O thread does: commands in, completions out, and what is left to do when the backend fails.

use crate::answers::{Answers, contain};
use crate::backend::{FileOp, FileReply, Wait};
use crate::config::{CLOSE_DEADLINE, FAILURE_DEADLINE};
use crate::{Backend, Completion, Error, Obtained, Priority, Request, RequestId};
use crossbeam_channel::{Receiver, Sender};

/// What a thread is told.
pub(crate) enum Command {
    Push(Request),
    Promote(RequestId, Priority),
    Abandon(RequestId),
    File(FileOp, Sender<Result<FileReply, Error>>),
    Obtained(Sender<Obtained>),
    Close,
}

pub(crate) struct Driver<Deliver> {
    backend: Box<dyn Backend>,
    commands: Receiver<Command>,
    answers: Answers<Deliver>,
    done: Vec<Completion>,
}

impl<Deliver: FnMut(Completion)> Driver<Deliver> {
    pub(crate) fn new(backend: Box<dyn Backend>, commands: Receiver<Command>, deliver: Deliver) -> Self {
        Driver { backend, commands, answers: Answers::new(deliver), done: Vec::new() }
    }

    /// Works until closed. Every request that came in a command has been answered then.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        const WHAT: &str = "the backend";
        let worked = contain(WHAT, || self.work());
        let closed = matches!(worked, Ok(Ok(())));
        let ended = match worked {
            Ok(Ok(())) => contain(WHAT, || self.backend.drain(CLOSE_DEADLINE, &mut self.done)),
            Ok(Err(error)) => contain(WHAT, || {
                self.give_up();
                Err(error)
            }),
            Err(panicked) => Err(panicked),
        };
        // After a panic the backend is not trusted to know what the drive still has.
        let trusted = ended.is_ok();
        let ended = ended.and_then(|ended| ended);
        if let Err(error) = &ended {
            self.answers.stop(&cause(error));
        }
        let result = ended.and(self.deliver_done());
        let result = result.map(|()| self.answers.forfeit("the backend did not answer")).map_err(|error| {
            tracing::error!(%error, closed, "an I/O thread has stopped");
            let cause = cause(&error);
            self.answers.forfeit(&cause);
            if !closed {
                self.refuse(&cause);
            }
            if closed && trusted { error } else { Error::Stopped { cause } }
        });
        if !trusted {
            std::mem::forget(self.backend);
        }
        result
    }

    /// Returns when closed.
    fn work(&mut self) -> Result<(), Error> {
        loop {
            // Before waiting: a command that comes after this look has its wake before it, so the wait ends at once.
            while let Ok(command) = self.commands.try_recv() {
                if !self.obey(command)? {
                    return Ok(());
                }
            }
            // Room for all that can come back, so that it grows only with what is under way.
            self.done.reserve(self.answers.owed_count());
            self.backend.reap(Wait::UntilSomething, &mut self.done)?;
            self.deliver_done()?;
        }
    }

    /// Whether to go on.
    fn obey(&mut self, command: Command) -> Result<bool, Error> {
        match command {
            Command::Push(request) => {
                if let Some(request) = self.answers.owe(request)? {
                    self.backend.push(request);
                }
            }
            Command::Promote(id, priority) => self.backend.promote(id, priority),
            Command::Abandon(id) => self.backend.abandon(id),
            // Whoever asked may have gone.
            Command::File(op, reply) => drop(reply.send(self.backend.file(op))),
            Command::Obtained(reply) => drop(reply.send(self.backend.obtained().clone())),
            Command::Close => return Ok(false),
        }
        Ok(true)
    }

    /// Delivers what is done, all of it whatever one delivery brings.
    fn deliver_done(&mut self) -> Result<(), Error> {
        let mut result = Ok(());
        for completion in self.done.drain(..) {
            result = result.and(self.answers.give(completion));
        }
        result
    }

    /// Gives up what is only queued, and waits for what is in flight.
    fn give_up(&mut self) {
        for id in self.answers.owed() {
            self.backend.abandon(id);
        }
        if let Err(error) = self.backend.drain(FAILURE_DEADLINE, &mut self.done) {
            tracing::error!(%error, "a backend that failed was not drained");
        }
    }

    /// Answers everything with why it cannot be done, until closed.
    fn refuse(&mut self, cause: &str) {
        let error = || Error::Stopped { cause: cause.to_owned() };
        while let Ok(command) = self.commands.recv() {
            match command {
                Command::Push(request) => {
                    if let Err(error) = self.answers.refuse(request, error()) {
                        tracing::error!(%error, "a completion was not taken");
                    }
                }
                // Whoever asks what was obtained has it from the start, too.
                Command::Promote(..) | Command::Abandon(_) | Command::Obtained(_) => {}
                Command::File(_, reply) => drop(reply.send(Err(error()))),
                Command::Close => return,
            }
        }
    }
}

/// What stopped a thread, without saying twice that it did.
fn cause(error: &Error) -> String {
    match error {
        Error::Stopped { cause } => cause.clone(),
        other => other.to_string(),
    }
}

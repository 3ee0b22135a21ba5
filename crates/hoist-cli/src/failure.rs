//! How a command can end other than well.

use std::fmt::{self, Display};
use std::process::ExitCode;

use crate::config::Problem;

/// Why a command did not do what it was asked to; decides the exit status.
#[derive(Debug)]
pub enum Failure {
    /// The work failed, or data was wrong: exit status 1.
    Work(String),
    /// The config was wrong: exit status 2.
    Config(Vec<Problem>),
    /// It was interrupted: exit status 1. What there was to say has been said.
    Interrupted,
}

impl Failure {
    /// The work failed: what it was doing, why it failed, and what to do about it.
    pub fn work(doing: impl Display, why: impl Display, remedy: impl Display) -> Self {
        // One line whatever an error's text brings along.
        Self::Work(format!("{doing}: {why}; {remedy}").replace('\n', " "))
    }

    /// What was read, if it is right and nothing else is wrong: all mistakes at once.
    ///
    /// # Errors
    /// [`Failure::Config`] with what was wrong with it, and the others.
    pub fn unless_right<T>(
        read: Result<T, Vec<Problem>>,
        others: impl IntoIterator<Item = Problem>,
    ) -> Result<T, Self> {
        let (read, mut problems) = match read {
            Ok(read) => (Some(read), Vec::new()),
            Err(problems) => (None, problems),
        };
        problems.extend(others);
        read.filter(|_| problems.is_empty()).ok_or(Self::Config(problems))
    }

    /// The exit status that stands for it.
    pub fn status(&self) -> ExitCode {
        match self {
            Self::Work(_) | Self::Interrupted => ExitCode::from(1),
            Self::Config(_) => ExitCode::from(2),
        }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Work(text) => write!(f, "{text}"),
            Self::Interrupted => {
                write!(f, "interrupted: the work was asked to end; run it again for all of it")
            }
            Self::Config(problems) => {
                let many = if problems.len() == 1 { "problem" } else { "problems" };
                write!(f, "{} {many} with the config", problems.len())?;
                problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

//! How failures look: one `error:` line, the chain of causes, then hints after a blank line.

use std::{
    error::Error,
    fmt::{self, Write as _},
};

use crate::{exit::Exit, output::Paint};

/// An error that knows what it means for the exit code and what the user can do about it.
pub trait Diagnose: Error + Send + Sync + 'static {
    /// The exit code that this error ends the process with.
    fn exit(&self) -> Exit;

    /// What to try next, one sentence each; empty when the message says it all.
    fn hints(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Any failure of a command.
#[derive(Debug)]
pub struct Failure(Box<dyn Diagnose>);

impl<E: Diagnose> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl Failure {
    /// The exit code that this failure ends the process with.
    pub fn exit(&self) -> Exit {
        self.0.exit()
    }

    /// The whole message, with a final newline.
    pub fn render(&self, paint: Paint) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut text, paint);
        text
    }

    fn write(&self, text: &mut String, paint: Paint) -> fmt::Result {
        writeln!(
            text,
            "{} {}",
            paint.bad("error:"),
            indented(&self.0.to_string(), "  ")
        )?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            writeln!(
                text,
                "  caused by: {}",
                indented(&error.to_string(), "    ")
            )?;
            cause = error.source();
        }
        let hints = self.0.hints();
        if !hints.is_empty() {
            writeln!(text)?;
        }
        for hint in hints {
            writeln!(text, "{} {}", paint.strong("hint:"), indented(&hint, "  "))?;
        }
        Ok(())
    }
}

fn indented(message: &str, indent: &str) -> String {
    message.trim_end().replace('\n', &format!("\n{indent}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the manifest")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("2 problems:\na: one\nb: two")]
    struct Inner;

    impl Diagnose for Outer {
        fn exit(&self) -> Exit {
            Exit::Usage
        }

        fn hints(&self) -> Vec<String> {
            vec!["run `contrast generate`".into()]
        }
    }

    #[test]
    fn message_then_causes_then_hints() {
        let text = Failure::from(Outer(Inner)).render(Paint::Plain);
        assert_eq!(
            text,
            "error: cannot read the manifest\n  caused by: 2 problems:\n    a: one\n    b: two\n\n\
             hint: run `contrast generate`\n"
        );
    }
}

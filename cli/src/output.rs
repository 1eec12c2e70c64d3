//! Who writes where: results go to standard output, everything else to standard error.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use clap::builder::styling::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::{
    args::{ColorChoice, Format},
    diagnostic::{Diagnose, Failure},
    exit::Exit,
};

/// Whether text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// ANSI colours.
    Colour,
    /// No escape sequences at all.
    Plain,
}

impl Paint {
    /// Decides for a stream that is a terminal or not. `NO_COLOR` (any value but empty) turns `auto` off.
    pub fn choose(choice: ColorChoice, terminal: bool, no_color: bool) -> Self {
        match choice {
            ColorChoice::Always => Self::Colour,
            ColorChoice::Auto if terminal && !no_color => Self::Colour,
            ColorChoice::Auto | ColorChoice::Never => Self::Plain,
        }
    }

    /// Something that is as it should be.
    pub fn good(self, text: &str) -> String {
        self.styled(AnsiColor::Green.on_default(), text)
    }

    /// Something that is wrong.
    pub fn bad(self, text: &str) -> String {
        self.styled(AnsiColor::Red.on_default().bold(), text)
    }

    /// Something that deserves attention.
    pub fn alarming(self, text: &str) -> String {
        self.styled(AnsiColor::Yellow.on_default().bold(), text)
    }

    /// A heading.
    pub fn strong(self, text: &str) -> String {
        self.styled(Style::new().bold(), text)
    }

    fn styled(self, style: Style, text: &str) -> String {
        match self {
            Self::Colour => format!("{style}{text}{style:#}"),
            Self::Plain => text.to_owned(),
        }
    }
}

/// A result that can be printed both ways; JSON comes from the same value as the text.
pub trait Render: Serialize {
    /// Writes the form for people.
    ///
    /// # Errors
    /// When `out` cannot be written.
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()>;
}

/// The result could not be printed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// Standard output is closed or full.
    #[error("cannot write to standard output")]
    Write(#[source] io::Error),
    /// The result has no JSON form.
    #[error("cannot encode the result as JSON")]
    Encode(#[source] serde_json::Error),
}

impl Diagnose for OutputError {
    fn exit(&self) -> Exit {
        Exit::Internal
    }
}

/// Standard output and standard error of one run.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    stdout: Paint,
    stderr: Paint,
    progress: bool,
}

impl Output {
    /// The process's own streams.
    pub fn new(choice: ColorChoice) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let terminal = io::stderr().is_terminal();
        // Older consoles show the codes unless they are asked not to.
        #[cfg(windows)]
        let no_color = no_color || anstyle_query::windows::enable_ansi_colors() == Some(false);
        Self {
            stdout: Paint::choose(choice, io::stdout().is_terminal(), no_color),
            stderr: Paint::choose(choice, terminal, no_color),
            progress: terminal,
        }
    }

    /// Prints the result of a command to standard output. A reader that went away is not an error.
    ///
    /// # Errors
    /// When standard output cannot be written for another reason.
    pub fn result<R: Render>(&self, format: Format, result: &R) -> Result<(), OutputError> {
        let mut text = Vec::new();
        match format {
            Format::Text => result
                .text(&mut text, self.stdout)
                .map_err(OutputError::Write)?,
            Format::Json => {
                serde_json::to_writer_pretty(&mut text, result).map_err(OutputError::Encode)?;
                text.push(b'\n');
            }
        }
        self.raw(&text)
    }

    /// Prints bytes to standard output as they are. A reader that went away is not an error.
    ///
    /// # Errors
    /// When standard output cannot be written for another reason.
    pub fn raw(&self, bytes: &[u8]) -> Result<(), OutputError> {
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(OutputError::Write(error))
            }
            _ => Ok(()),
        }
    }

    /// Begins a new screen; nothing unless standard output is a terminal with colours.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn clear(&self) -> Result<(), OutputError> {
        match self.stdout {
            Paint::Colour => self.raw(b"\x1b[H\x1b[2J"),
            Paint::Plain => Ok(()),
        }
    }

    /// Prints a warning to standard error.
    pub fn warning(&self, text: &str) {
        self.line(&format!("{} {text}", self.stderr.alarming("warning:")));
    }

    /// Prints a note about what happens to standard error.
    pub fn note(&self, text: &str) {
        self.line(text);
    }

    /// Prints a failure to standard error.
    pub fn failure(&self, failure: &Failure) {
        let _ = write!(io::stderr().lock(), "{}", failure.render(self.stderr));
    }

    /// Shows that something takes time; nothing unless standard error is a terminal. Ends when dropped.
    pub fn spinner(&self, text: &str) -> Spinner {
        if !self.progress {
            return Spinner::hidden();
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.set_message(text.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        Spinner(bar)
    }

    // Standard error may be closed; there is nowhere left to say so.
    fn line(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// Progress on a terminal; cleared when dropped.
#[derive(Debug)]
pub struct Spinner(ProgressBar);

impl Spinner {
    /// Shows nothing.
    pub fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// Replaces the text.
    pub fn message(&self, text: &str) {
        self.0.set_message(text.to_owned());
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Bytes of layers that were read, of all that will be; nothing unless standard error is a terminal.
#[derive(Debug)]
pub struct LayerProgress(ProgressBar);

impl LayerProgress {
    /// Begins to show it once there are layers to read.
    pub fn new(output: &Output) -> Self {
        let bar = match output.progress {
            true => ProgressBar::no_length(),
            false => ProgressBar::hidden(),
        };
        let template = "{msg} {wide_bar} {bytes}/{total_bytes} ({bytes_per_sec})";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar)
    }
}

impl contrast_images::Progress for LayerProgress {
    fn begin(&self, layers: usize, bytes: u64) {
        if layers > 0 {
            self.0.set_message(format!("reading {layers} layer(s)"));
            self.0.set_length(bytes);
        }
    }

    fn read(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl Drop for LayerProgress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_for_terminals_only_unless_forced() {
        assert_eq!(Paint::choose(ColorChoice::Auto, true, false), Paint::Colour);
        assert_eq!(Paint::choose(ColorChoice::Auto, true, true), Paint::Plain);
        assert_eq!(Paint::choose(ColorChoice::Auto, false, false), Paint::Plain);
        assert_eq!(
            Paint::choose(ColorChoice::Always, false, true),
            Paint::Colour
        );
        assert_eq!(Paint::choose(ColorChoice::Never, true, false), Paint::Plain);
        assert_eq!(Paint::Plain.bad("x"), "x");
        assert!(Paint::Colour.bad("x").starts_with("\u{1b}["));
    }
}

//! What is written: results to the standard output, all else to the standard error.

pub(crate) mod describe;
pub(crate) mod table;

use std::io::{self, Write};

use serde_json::Value;

use crate::failure::{Exit, Failure};

/// The two streams, and the form that results have.
pub(crate) struct Output {
    pub(crate) is_json: bool,
    out: Box<dyn Write>,
    err: Box<dyn Write>,
}

impl Output {
    pub(crate) fn standard(is_json: bool) -> Self {
        Self::to(is_json, io::stdout(), io::stderr())
    }

    pub(crate) fn to(is_json: bool, out: impl Write + 'static, err: impl Write + 'static) -> Self {
        Self { is_json, out: Box::new(out), err: Box::new(err) }
    }

    /// Writes a result, in lines. A reader who has seen enough, such as `head`, is no failure.
    pub(crate) fn result(&mut self, text: &str) -> Result<(), Failure> {
        match self.write(text) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::new(Exit::Output, format!("the output cannot be written: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Writes a result as JSON, on a line of its own.
    pub(crate) fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.result(&value.to_string())
    }

    /// Writes a secret, or what holds one. Unlike [`result`](Self::result) it must arrive: there is no other copy.
    pub(crate) fn secret(&mut self, text: &str) -> io::Result<()> {
        self.write(text)
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        let newline = if text.ends_with('\n') { "" } else { "\n" };
        write!(self.out, "{text}{newline}")?;
        self.out.flush()
    }

    /// Tells people something, if anybody listens.
    pub(crate) fn note(&mut self, text: &str) {
        let _ = writeln!(self.err, "{text}");
    }

    /// Asks people something.
    pub(crate) fn ask(&mut self, question: &str) {
        let _ = write!(self.err, "{question}");
        let _ = self.err.flush();
    }
}

//! Reads the key to verify, and the answer to a question.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use zeroize::Zeroizing;

use crate::{
    failure::{Exit, Failure},
    output,
};

/// Keys are far shorter.
const MAX_INPUT: usize = 64 * 1024;

/// The key on standard input, without one trailing newline. On a terminal, prompts for it.
pub(crate) async fn secret() -> Result<Zeroizing<Vec<u8>>, Failure> {
    let secret = if io::stdin().is_terminal() { prompt().await? } else { on_a_thread(read_all).await? };
    if secret.is_empty() {
        return Err(Failure::new(
            Exit::Refused,
            "no key to verify: pass it on standard input, as in `tollgate verify < key.txt`",
        ));
    }
    Ok(secret)
}

/// Prompts on the terminal, without echo.
#[cfg(unix)]
async fn prompt() -> Result<Zeroizing<Vec<u8>>, Failure> {
    // Turns the echo on again when it is dropped: after the answer, or on Ctrl-C.
    let _hidden = hidden::Hidden::begin().map_err(|error| unreadable(&error))?;
    output::ask("Key: ");
    on_a_thread(|| read(|stdin, secret| stdin.read_until(b'\n', secret))).await
}

#[cfg(not(unix))]
async fn prompt() -> Result<Zeroizing<Vec<u8>>, Failure> {
    Err(Failure::new(
        Exit::Usage,
        "this terminal would show the key: pass it on standard input from a pipe or a file",
    ))
}

fn read_all() -> Result<Zeroizing<Vec<u8>>, Failure> {
    read(io::Read::read_to_end)
}

fn read(
    by: impl FnOnce(&mut io::Take<io::StdinLock<'static>>, &mut Vec<u8>) -> io::Result<usize>,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    // A buffer that grows would leave copies in memory that are not zeroed.
    let mut secret = Zeroizing::new(Vec::with_capacity(MAX_INPUT));
    let mut stdin = io::stdin().lock().take(MAX_INPUT as u64);
    by(&mut stdin, &mut secret).map_err(|error| unreadable(&error))?;
    trim_newline(&mut secret);
    Ok(secret)
}

fn trim_newline(secret: &mut Vec<u8>) {
    if secret.last() == Some(&b'\n') {
        secret.pop();
        if secret.last() == Some(&b'\r') {
            secret.pop();
        }
    }
}

/// Asks a yes-or-no question. Fails if standard input is not a terminal.
pub(crate) async fn confirm(question: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            "cannot ask for confirmation, as standard input is not a terminal: pass --yes to go on without it",
        ));
    }
    output::ask(&format!("{question} [y/N] "));
    let answer = on_a_thread(|| {
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map_err(|error| unreadable(&error))?;
        Ok(answer)
    });
    let answer = answer.await?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Reads on another thread, so that Ctrl-C still ends the program.
async fn on_a_thread<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let outcome = tokio::task::spawn_blocking(read).await;
    outcome.unwrap_or_else(|_| Err(Failure::new(Exit::Usage, "cannot read standard input")))
}

fn unreadable(error: &io::Error) -> Failure {
    Failure::new(Exit::Usage, format!("cannot read standard input: {error}"))
}

/// Turns off the echo of the terminal.
#[cfg(unix)]
mod hidden {
    use std::io;

    use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

    pub(super) struct Hidden {
        before: Termios,
    }

    impl Hidden {
        pub(super) fn begin() -> io::Result<Self> {
            let before = tcgetattr(io::stdin())?;
            let mut hidden = before.clone();
            hidden.local_modes.remove(LocalModes::ECHO);
            // Except for the newline, so that output begins on a new line.
            hidden.local_modes.insert(LocalModes::ECHONL);
            // Discards input that was typed, and echoed, before.
            tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
            Ok(Self { before })
        }
    }

    impl Drop for Hidden {
        fn drop(&mut self) {
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::trim_newline;

    #[test]
    fn only_one_trailing_newline_is_removed() {
        for (given, left) in
            [("k", "k"), ("k\n", "k"), ("k\r\n", "k"), ("k\n\n", "k\n"), (" k \n", " k "), ("\n", "")]
        {
            let mut secret = given.as_bytes().to_vec();
            trim_newline(&mut secret);
            assert_eq!(secret, left.as_bytes(), "{given:?}");
        }
    }
}

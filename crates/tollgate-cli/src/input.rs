//! What is read from whoever calls: the key to be verified, the answer to a question.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use zeroize::Zeroizing;

use crate::{
    failure::{Exit, Failure},
    output,
};

/// Far more than any key has.
const LONGEST_INPUT: usize = 64 * 1024;

/// The key on the standard input, without the one newline that `echo` and files end with. From a terminal it is asked for.
pub(crate) async fn secret() -> Result<Zeroizing<Vec<u8>>, Failure> {
    let secret = if io::stdin().is_terminal() { prompt().await? } else { waiting(read_all).await? };
    if secret.is_empty() {
        return Err(Failure::new(
            Exit::Refused,
            "there is no key to verify: write it to the standard input, as in `tollgate verify < key.txt`",
        ));
    }
    Ok(secret)
}

/// Asks on the terminal, which shows nothing of the answer.
#[cfg(unix)]
async fn prompt() -> Result<Zeroizing<Vec<u8>>, Failure> {
    // Shows again what is typed once this is dropped: with the answer, or by Ctrl-C.
    let _hidden = hidden::Hidden::begin().map_err(|error| unreadable(&error))?;
    output::ask("Key: ");
    waiting(|| read(|stdin, secret| stdin.read_until(b'\n', secret))).await
}

#[cfg(not(unix))]
async fn prompt() -> Result<Zeroizing<Vec<u8>>, Failure> {
    Err(Failure::new(
        Exit::Usage,
        "this terminal would show the key: write it to the standard input by a pipe or a file",
    ))
}

fn read_all() -> Result<Zeroizing<Vec<u8>>, Failure> {
    read(io::Read::read_to_end)
}

fn read(
    by: impl FnOnce(&mut io::Take<io::StdinLock<'static>>, &mut Vec<u8>) -> io::Result<usize>,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    // Reserved at once, because a buffer that grows leaves its old memory behind unwiped.
    let mut secret = Zeroizing::new(Vec::with_capacity(LONGEST_INPUT));
    let mut stdin = io::stdin().lock().take(LONGEST_INPUT as u64);
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

/// Asks a question that is answered with yes or no, where there is somebody to answer it.
pub(crate) async fn confirm(question: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            "nobody can be asked, since the standard input is no terminal: say --yes, and it is deleted without a question",
        ));
    }
    output::ask(&format!("{question} [y/N] "));
    let answer = waiting(|| {
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map_err(|error| unreadable(&error))?;
        Ok(answer)
    });
    let answer = answer.await?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Reads on a thread of its own, so that Ctrl-C is heard meanwhile.
async fn waiting<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let outcome = tokio::task::spawn_blocking(read).await;
    outcome.unwrap_or_else(|_| Err(Failure::new(Exit::Usage, "the standard input cannot be read")))
}

fn unreadable(error: &io::Error) -> Failure {
    Failure::new(Exit::Usage, format!("the standard input cannot be read: {error}"))
}

/// A terminal that does not show what is typed.
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
            // But for the newline, behind which the answer is written.
            hidden.local_modes.insert(LocalModes::ECHONL);
            // What was typed too early was shown, and is thrown away.
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
    fn one_newline_is_left_out_and_nothing_else() {
        for (given, left) in
            [("k", "k"), ("k\n", "k"), ("k\r\n", "k"), ("k\n\n", "k\n"), (" k \n", " k "), ("\n", "")]
        {
            let mut secret = given.as_bytes().to_vec();
            trim_newline(&mut secret);
            assert_eq!(secret, left.as_bytes(), "{given:?}");
        }
    }
}

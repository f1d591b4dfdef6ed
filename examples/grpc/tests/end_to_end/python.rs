//! `client.py` as a running process: a client with grpcio.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::service::{PATIENCE, folder};

/// A client with one channel. Killed when dropped.
pub(crate) struct Client {
    _child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    calls: u64,
}

/// A call that was opened.
#[derive(Clone, Copy)]
pub(crate) struct Call(u64);

/// How a call has ended.
#[derive(Debug)]
pub(crate) struct End(Value);

impl Client {
    pub(crate) fn start(address: &str) -> Self {
        let python = folder(3).join("python").join("bin").join("python");
        assert!(
            python.is_file(),
            "{} is missing: run ./test once, which makes the virtual environment",
            python.display()
        );
        let mut child = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/client.py"))
            .arg(address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { _child: child, commands, answers, calls: 0 }
    }

    async fn ask(&mut self, command: Value) -> Value {
        self.commands.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        let line = timeout(PATIENCE, self.answers.next_line()).await.expect("no answer").unwrap();
        let line = line.unwrap_or_else(|| panic!("client.py has failed at {command}: see its error above"));
        serde_json::from_str(&line).unwrap()
    }

    /// The names of all services, by a version of the reflection protocol.
    pub(crate) async fn services(&mut self, version: &str) -> Vec<String> {
        let answer = self.ask(json!({ "do": "services", "version": version })).await;
        serde_json::from_value(answer["services"].clone()).unwrap()
    }

    /// Opens a call. Of an RPC whose client does not stream, `message` is sent.
    pub(crate) async fn open(&mut self, rpc: &str, metadata: &[(&str, &str)], message: Value) -> Call {
        self.calls += 1;
        let command = json!({
            "do": "open", "call": self.calls, "rpc": rpc, "metadata": metadata, "message": message,
        });
        self.ask(command).await;
        Call(self.calls)
    }

    pub(crate) async fn send(&mut self, Call(call): Call, message: Value) {
        self.ask(json!({ "do": "send", "call": call, "message": message })).await;
    }

    pub(crate) async fn half_close(&mut self, Call(call): Call) {
        self.ask(json!({ "do": "half_close", "call": call })).await;
    }

    /// The next message; `None` if the call has ended.
    pub(crate) async fn receive(&mut self, Call(call): Call) -> Option<Value> {
        let answer = self.ask(json!({ "do": "receive", "call": call })).await;
        Some(answer["message"].clone()).filter(|message| !message.is_null())
    }

    /// Waits for the initial metadata.
    pub(crate) async fn initial_metadata(&mut self, Call(call): Call) -> Value {
        self.ask(json!({ "do": "initial", "call": call })).await["metadata"].clone()
    }

    pub(crate) async fn cancel(&mut self, Call(call): Call) {
        self.ask(json!({ "do": "cancel", "call": call })).await;
    }

    /// Waits until the server has ended the call.
    pub(crate) async fn end(&mut self, Call(call): Call) -> End {
        End(self.ask(json!({ "do": "end", "call": call })).await)
    }

    /// Opens a call with an empty message, and waits until the server has ended it.
    pub(crate) async fn call(&mut self, rpc: &str, metadata: &[(&str, &str)]) -> End {
        let call = self.open(rpc, metadata, json!({})).await;
        self.end(call).await
    }
}

impl End {
    /// The code, such as `OK`.
    pub(crate) fn code(&self) -> &str {
        self.0["code"].as_str().unwrap()
    }

    /// The code and the message of the status.
    pub(crate) fn status(&self) -> (&str, &str) {
        (self.code(), self.0["text"].as_str().unwrap())
    }

    /// The detail with this name, such as `RetryInfo`; null if there is none.
    pub(crate) fn detail(&self, name: &str) -> &Value {
        let url = format!("type.googleapis.com/google.rpc.{name}");
        let details = self.0["details"].as_array().unwrap();
        details.iter().find(|detail| detail["@type"] == url).unwrap_or(&Value::Null)
    }

    /// The names of the details, sorted.
    pub(crate) fn details(&self) -> Vec<&str> {
        let details = self.0["details"].as_array().unwrap().iter();
        let mut names: Vec<_> =
            details.map(|detail| detail["@type"].as_str().unwrap().rsplit('.').next().unwrap()).collect();
        names.sort_unstable();
        names
    }

    pub(crate) fn initial_metadata(&self) -> &Value {
        &self.0["initial"]
    }

    /// An entry of the trailing metadata.
    pub(crate) fn trailing(&self, name: &str) -> Option<&str> {
        self.0["trailing"][name].as_str()
    }

    /// All messages that were received.
    pub(crate) fn messages(&self) -> &[Value] {
        self.0["messages"].as_array().unwrap()
    }
}

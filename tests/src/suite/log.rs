//! A log for tests: the events that the layers, and the service inside them, send to `tracing`.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    sync::{Arc, Mutex},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};
use tracing_subscriber::{Layer, Registry, layer::Context, layer::SubscriberExt as _, registry::LookupSpan};

/// All `tracing` events of this thread while the log exists, down to the level `TRACE`.
pub struct Log {
    entries: Entries,
    _guard: DefaultGuard,
}

type Entries = Arc<Mutex<Vec<Entry>>>;

/// One event, or one span at the moment it was opened.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The target.
    pub target: String,
    /// The level.
    pub level: Level,
    /// The span's name; for an event, what it was called in the code.
    pub name: String,
    /// All fields, the message included.
    pub fields: BTreeMap<String, String>,
    /// For an event: the spans in which it happened, outermost first.
    pub spans: Vec<Entry>,
}

impl Entry {
    /// The value of a field; `None` where the event left it empty.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }
}

impl Log {
    /// Begins to record what this thread does.
    pub fn start() -> Self {
        let entries = Entries::default();
        let subscriber = Registry::default().with(Recorder(Arc::clone(&entries)));
        Self { entries, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// All entries so far, in order.
    ///
    /// # Panics
    /// If another thread has panicked while recording.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap().clone()
    }

    /// The refusals so far: the events whose message is `refused`.
    pub fn refusals(&self) -> Vec<Entry> {
        self.entries().into_iter().filter(|entry| entry.field("message") == Some("refused")).collect()
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries()).finish()
    }
}

struct Recorder(Entries);

impl<S: Subscriber + for<'l> LookupSpan<'l>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let mut entry = entry(attributes.metadata());
        attributes.record(&mut Fields(&mut entry.fields));
        self.0.lock().unwrap().push(entry.clone());
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(entry);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(entry) = span.extensions_mut().get_mut::<Entry>() {
            values.record(&mut Fields(&mut entry.fields));
            self.0.lock().unwrap().push(entry.clone());
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut entry = entry(event.metadata());
        event.record(&mut Fields(&mut entry.fields));
        let scope =
            context.event_scope(event).into_iter().flat_map(tracing_subscriber::registry::Scope::from_root);
        entry.spans = scope.filter_map(|span| span.extensions().get::<Entry>().cloned()).collect();
        self.0.lock().unwrap().push(entry);
    }
}

fn entry(metadata: &Metadata<'_>) -> Entry {
    Entry {
        target: metadata.target().to_owned(),
        level: *metadata.level(),
        name: metadata.name().to_owned(),
        fields: BTreeMap::new(),
        spans: Vec::new(),
    }
}

/// Writes every field as text, strings without quotes.
struct Fields<'e>(&'e mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = write!(text, "{value:?}");
        self.0.insert(field.name().to_owned(), text);
    }
}

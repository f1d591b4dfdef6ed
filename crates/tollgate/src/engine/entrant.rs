//! A request that is on its way through the gates.

use http::{HeaderMap, Request, Uri};
use tollgate_core::Head;

use super::Passage;

/// A request on its way through the gates, whatever its body: what gates see of it.
pub(crate) trait Entrant {
    /// Its head, to look at.
    fn head(&self) -> Head<'_>;

    /// Its headers.
    fn headers_mut(&mut self) -> &mut HeaderMap;

    /// Its target.
    fn uri_mut(&mut self) -> &mut Uri;

    /// What the layers have learned about it.
    fn passage(&self) -> &Passage;

    /// The same, to learn more.
    fn passage_mut(&mut self) -> &mut Passage;
}

/// The request, and its passage: one of its extensions where layers further out have begun it; until the walk is over beside
/// it where they have not, since a look into the extensions costs as much as many a gate.
pub(super) struct Arrival<'r, B> {
    request: &'r mut Request<B>,
    begun: Option<Passage>,
}

impl<'r, B> Arrival<'r, B> {
    #[inline(always)]
    pub(super) fn of(request: &'r mut Request<B>) -> Self {
        match Passage::of(request.extensions()) {
            Some(_) => Self { request, begun: None },
            None => Self { request, begun: Some(Passage::new()) },
        }
    }

    /// Ends the walk: whoever has the request from here on finds the passage in its extensions.
    #[inline(always)]
    pub(super) fn leave(&mut self) {
        // Asked first, since taking nothing costs as much as taking a passage.
        if self.begun.is_some()
            && let Some(passage) = self.begun.take()
        {
            self.request.extensions_mut().insert(passage);
        }
    }
}

/// Of a request whose passage somebody has taken away in the midst of a walk, which nobody can.
static LOST: Passage = Passage::new();

impl<B> Entrant for Arrival<'_, B> {
    fn head(&self) -> Head<'_> {
        Head::of(self.request)
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.request.headers_mut()
    }

    fn uri_mut(&mut self) -> &mut Uri {
        self.request.uri_mut()
    }

    fn passage(&self) -> &Passage {
        match &self.begun {
            Some(passage) => passage,
            None => Passage::of(self.request.extensions()).unwrap_or(&LOST),
        }
    }

    fn passage_mut(&mut self) -> &mut Passage {
        match &mut self.begun {
            Some(passage) => passage,
            None => self.request.extensions_mut().get_or_insert_default(),
        }
    }
}

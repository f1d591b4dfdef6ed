//! A request that is on its way through the gates.

use std::{mem, sync::LazyLock};

use http::{Extensions, HeaderMap, Request, Uri};
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

/// A request's passage, apart from the request while the request walks: gates read the one and write the other, and looking for
/// the passage among the extensions costs as much as many a gate.
pub(super) struct Apart {
    // With the extensions around it, where it is the only one or a new one.
    alone: Extensions,
    // Out of the place that it has beside others.
    taken: Option<Passage>,
}

/// Extensions with a passage that has just begun: to copy them costs less than to make them.
static BEGUN: LazyLock<Extensions> = LazyLock::new(|| {
    let mut extensions = Extensions::new();
    extensions.insert(Passage::new());
    extensions
});

impl Apart {
    /// Takes the passage of a request, or begins one.
    #[inline]
    pub(super) fn of<B>(request: &mut Request<B>) -> Self {
        let extensions = request.extensions_mut();
        if Passage::of(extensions).is_none() {
            Self { alone: BEGUN.clone(), taken: None }
        } else if extensions.len() == 1 {
            Self { alone: mem::take(extensions), taken: None }
        } else {
            Self { alone: Extensions::new(), taken: extensions.get_mut::<Passage>().map(mem::take) }
        }
    }

    #[inline]
    pub(super) fn arrive<'r, B>(&'r mut self, request: &'r mut Request<B>) -> Arrival<'r, B> {
        let passage = match self.alone.get_mut() {
            Some(passage) => passage,
            None => self.taken.get_or_insert_with(Passage::new),
        };
        Arrival { request, passage }
    }

    /// Puts the passage where whoever has the request from here on finds it: among its extensions.
    #[inline]
    pub(super) fn rejoin<B>(&mut self, request: &mut Request<B>) {
        let extensions = request.extensions_mut();
        if let Some(passage) = self.taken.take() {
            *extensions.get_or_insert_default() = passage;
        } else if extensions.is_empty() {
            *extensions = mem::take(&mut self.alone);
        } else {
            extensions.extend(mem::take(&mut self.alone));
        }
    }
}

/// A request of any body, and its passage.
pub(super) struct Arrival<'r, B> {
    request: &'r mut Request<B>,
    passage: &'r mut Passage,
}

impl<B> Entrant for Arrival<'_, B> {
    #[inline]
    fn head(&self) -> Head<'_> {
        Head::of(self.request)
    }

    #[inline]
    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.request.headers_mut()
    }

    #[inline]
    fn uri_mut(&mut self) -> &mut Uri {
        self.request.uri_mut()
    }

    #[inline]
    fn passage(&self) -> &Passage {
        self.passage
    }

    #[inline]
    fn passage_mut(&mut self) -> &mut Passage {
        self.passage
    }
}

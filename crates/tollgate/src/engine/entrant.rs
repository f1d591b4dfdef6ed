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
pub(super) struct Apart(Extensions);

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
            Self(BEGUN.clone())
        } else if extensions.len() == 1 {
            Self(mem::take(extensions))
        } else {
            // Beside others it stays, since gates shall see those.
            Self(Extensions::new())
        }
    }

    #[inline]
    pub(super) fn arrive<'r, B>(&'r mut self, request: &'r mut Request<B>) -> Arrival<'r, B> {
        Arrival { request, apart: self.0.get_mut() }
    }

    /// Puts the passage where whoever has the request from here on finds it: among its extensions.
    #[inline]
    pub(super) fn rejoin<B>(self, request: &mut Request<B>) {
        let extensions = request.extensions_mut();
        if extensions.is_empty() {
            *extensions = self.0;
        } else if !self.0.is_empty() {
            extensions.extend(self.0);
        }
    }
}

/// A request of any body, and its passage: `None` if that is still among its extensions.
pub(super) struct Arrival<'r, B> {
    request: &'r mut Request<B>,
    apart: Option<&'r mut Passage>,
}

/// Of a request whose passage somebody has taken away in the midst of a walk, which nobody can.
static LOST: Passage = Passage::new();

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
        match &self.apart {
            Some(passage) => passage,
            None => Passage::of(self.request.extensions()).unwrap_or(&LOST),
        }
    }

    #[inline]
    fn passage_mut(&mut self) -> &mut Passage {
        match &mut self.apart {
            Some(passage) => passage,
            None => self.request.extensions_mut().get_or_insert_default(),
        }
    }
}

//! Client addresses as subjects of limits.

use std::sync::atomic::{AtomicU64, Ordering};

use tollgate_core::request::RequestHead;

use super::ClientAddress;

impl ClientAddress {
    /// The address of the request's client as a subject of `layer`. `None` if it is not known. That is a configuration error,
    /// which is logged.
    pub(crate) fn subject(&self, head: RequestHead<'_>, layer: &'static str) -> Option<String> {
        let found = self.find(head);
        if found.is_none() {
            report_missing(layer);
        }
        found.map(|address| address.to_string())
    }
}

/// Logs the 1st, 2nd, 4th, 8th, … request without an address: if one request has none, all have none.
#[cold]
fn report_missing(layer: &'static str) {
    static MISSING: AtomicU64 = AtomicU64::new(0);
    let requests = MISSING.fetch_add(1, Ordering::Relaxed) + 1;
    if requests.is_power_of_two() {
        tracing::error!(
            target: "tollgate",
            layer,
            requests,
            "client address unknown, limits by address are not applied: let the server attach the address of the peer (axum: \
             serve the router with into_make_service_with_connect_info::<SocketAddr>()), and give ClientAddress::of_peer a \
             function that reads it"
        );
    }
}

//! Charging the messages of streams one by one: against limits, against credits, and for as long as the caller's key holds.

mod credits;
mod limits;
mod report_only;
mod streams;

use std::net::IpAddr;

use http::Request;
use tests::suite::{Backend, Directory, Inner, Reply, Stack, World, at, erase, get, send};
use tollgate::{
    ClientAddress, Denial, DenialKind, MessageLayer, PerWindow as _, Plan, Policy, Principal, RateLimitLayer,
    RequestContext, Tollgate, clock::ManualClock, layers::TollgateBuilder, limit::Subject,
    request::MessageMeter, store::EndSignal,
};
use tower::Layer as _;

/// A service behind a stack whose clock shows `at(0)`.
struct Api {
    stack: Stack,
    inner: Inner,
    clock: ManualClock,
    // Of the key `ada`, which expires at `at(3600)`.
    end: EndSignal,
}

impl Api {
    fn new(layers: impl FnOnce(TollgateBuilder) -> TollgateBuilder) -> Self {
        let (end, clock, inner) = (EndSignal::new(), ManualClock::at(at(0)), Inner::new());
        let ada =
            Principal::new("ada").with_tenant("acme").with_expiry(at(3_600)).with_end_signal(end.clone());
        let directory = Directory::new(&Backend::prompt())
            .with("ada", ada)
            .with("bob", Principal::new("bob").with_tenant("acme").with_plan(Plan::active("pro")))
            .with("cyd", Principal::new("cyd"));
        let tollgate = layers(Tollgate::builder().verify(directory).clock(clock.clone()));
        let stack = erase(tollgate.build().unwrap().layer(inner.clone()));
        Self { stack, inner, clock, end }
    }

    /// A stack that only charges messages.
    fn charging(layer: MessageLayer) -> Self {
        Self::new(|builder| builder.messages(layer))
    }

    async fn send(&self, request: Request<String>) -> Reply {
        send(&mut self.stack.clone(), request).await
    }

    /// Opens a stream, and returns its meter.
    async fn open(&self, key: &str) -> MessageMeter {
        self.open_by(by(key)).await
    }

    async fn open_by(&self, request: Request<String>) -> MessageMeter {
        let reply = self.send(request).await;
        assert_eq!(reply.kind(), None, "{reply:?}");
        let request = self.inner.take_last();
        RequestContext::of(request.extensions()).unwrap().messages().unwrap().clone()
    }
}

fn by(key: &str) -> Request<String> {
    get("/chat?x=s3cr3t", &[("x-api-key", key)])
}

/// An anonymous request from an address.
fn from(address: &str) -> Request<String> {
    get("/chat", &[("x-address", address)])
}

fn by_address() -> Subject {
    Subject::Address(ClientAddress::of_peer(|head| {
        head.headers.get("x-address")?.to_str().ok()?.parse::<IpAddr>().ok()
    }))
}

fn kind(charged: Result<(), Denial>) -> Option<DenialKind> {
    charged.err().map(|denial| denial.kind())
}

/// Charges messages one by one until one is refused.
async fn charge_until_refused(meter: &MessageMeter) -> (u64, Denial) {
    let mut charged = 0;
    loop {
        match meter.charge(1).await {
            Ok(()) => charged += 1,
            Err(denial) => return (charged, denial),
        }
        assert!(charged < 10_000, "no message is refused");
    }
}

//! `tower_governor` alone: one window as a token bucket, and two headers.

use std::time::Duration;

use axum::body::Body;
use governor::middleware::StateInformationMiddleware;
use http::{Request, header::AUTHORIZATION};
use tower::Layer;
use tower_governor::{
    GovernorError, GovernorLayer, governor::GovernorConfigBuilder, key_extractor::KeyExtractor,
};

use crate::{
    cast::Scenario,
    drive::{Bare, Driven, Handler, Stack},
};

pub(super) fn build(scenario: Scenario) -> Box<dyn Stack> {
    Box::new(Driven(layer(scenario, ByCredential).layer(Handler::<Bare>::new())))
}

pub(super) fn layer<K: KeyExtractor>(
    scenario: Scenario,
    extractor: K,
) -> GovernorLayer<K, StateInformationMiddleware, Body> {
    let (seconds, limit) = scenario.limits(1)[0];
    let config = GovernorConfigBuilder::default()
        .period(Duration::from_secs(seconds.into()) / limit)
        .burst_size(limit)
        .use_headers()
        .key_extractor(extractor)
        .finish()
        .unwrap();
    GovernorLayer::new(config)
}

/// Callers are distinguished by their credential, as in `tower_governor`'s example.
#[derive(Clone, Copy)]
struct ByCredential;

impl KeyExtractor for ByCredential {
    type Key = String;

    fn extract<T>(&self, request: &Request<T>) -> Result<String, GovernorError> {
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let key = header.and_then(|text| text.strip_prefix("Bearer "));
        key.map(str::to_owned).ok_or(GovernorError::UnableToExtractKey)
    }
}

//! The types, the decisions and the backend traits of Tollgate.
//!
//! This crate has no runtime and no framework. Its only I/O is the operating system's random numbers, and every decision takes
//! the time as an argument. Applications use this crate through `tollgate`, which re-exports it. Backends depend on it directly.
//!
//! | module | holds | backend traits |
//! |---|---|---|
//! | [`key`] | issued secrets: [`KeyFormat`](key::KeyFormat), [`ApiKey`](key::ApiKey), [`Digest`](key::Digest), [`Peppers`](key::Peppers) | |
//! | [`verify`] | who a caller is: [`Credential`](verify::Credential), [`Principal`](verify::Principal), [`Plan`](verify::Plan) | [`Verify`](verify::Verify), [`Entitlements`](verify::Entitlements) |
//! | [`scope`](mod@scope) | what a caller may do: [`Scopes`](scope::Scopes), [`Requirement`](scope::Requirement) | |
//! | [`limit`] | how much a caller may do: [`Quota`](limit::Quota), [`Counter`](limit::Counter), [`Decision`](limit::Decision) | [`Limiter`](limit::Limiter) |
//! | [`store`] | stored keys and their changes: [`KeyRecord`](store::KeyRecord), [`StoreEvent`](store::StoreEvent), [`EndSignal`](store::EndSignal) | [`KeyStore`](store::KeyStore), [`LegacyKeys`](store::LegacyKeys) |
//! | [`manage`] | managed keys: [`KeyDetails`](manage::KeyDetails), [`KeyChange`](manage::KeyChange), [`KeyEvent`](manage::KeyEvent), [`Actor`](manage::Actor) | [`KeyAdmin`](manage::KeyAdmin) |
//! | [`credits`] | what requests cost: [`Reservation`](credits::Reservation), [`Grant`](credits::Grant), [`LedgerEntry`](credits::LedgerEntry) | [`Credits`](credits::Credits), [`CreditAdmin`](credits::CreditAdmin), [`CreditLoans`](credits::CreditLoans) |
//! | [`in_flight`] | requests in flight: [`Place`](in_flight::Place) | [`Places`](in_flight::Places) |
//! | [`usage`] | how often keys are used | [`UsageSink`](usage::UsageSink), [`UsageStore`](usage::UsageStore) |
//! | [`bounds`] | the upper bounds of what is stored of a key | |
//! | [`guard`] | an application's own check: [`GuardRequest`](guard::GuardRequest) | [`Guard`](guard::Guard) |
//! | [`denial`] | why a request is refused: [`Denial`](denial::Denial), [`DenialKind`](denial::DenialKind) | |
//! | [`respond`] | how a refusal is written | [`Respond`](respond::Respond) |
//! | [`request`] | the head of a request: [`RequestHead`](request::RequestHead) | |
//! | [`network`] | networks of addresses: [`Network`](network::Network), [`Networks`](network::Networks) | |
//! | [`clock`] | the time: [`SystemClock`](clock::SystemClock), [`ManualClock`](clock::ManualClock) | [`Clock`](clock::Clock) |
//! | [`answer`] | what a backend trait returns, at once or later: [`Answer`](answer::Answer) | |
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod answer;
mod ascii;
pub mod bounds;
pub mod clock;
pub mod credits;
pub mod denial;
pub mod guard;
pub mod in_flight;
pub mod key;
pub mod limit;
pub mod manage;
pub mod network;
pub mod request;
pub mod respond;
pub mod scope;
pub mod store;
pub mod usage;
pub mod verify;

//! The RPCs.

use std::time::Duration;

use tokio::time::interval;
use tokio_stream::{StreamExt as _, wrappers::IntervalStream};
use tollgate_tonic::{Details, RequestExt as _};
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};
use tonic_reflection::server as reflection;

use crate::market::{self, Instrument};

#[allow(missing_docs, unreachable_pub, clippy::pedantic, reason = "generated code")]
pub(crate) mod proto {
    tonic::include_proto!("tollgate.demo.v1");
}

pub(crate) use proto::market_server::MarketServer;
use proto::{
    Candle, ChatRequest, ChatResponse, GetPriceRequest, Price, UploadCandlesResponse, WatchPricesRequest,
    market_server,
};

/// The proto and its imports, encoded, with the policies.
pub(crate) static DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/market.bin"));

/// Reflection of all services, also of their policies.
pub(crate) fn reflection() -> reflection::Builder<'static> {
    reflection::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// The service. It does not check who calls: only allowed calls get here.
pub(crate) struct Market {
    // Of the statuses that refuse a message.
    details: Details,
}

impl Market {
    pub(crate) fn new(details: Details) -> Self {
        Self { details }
    }
}

#[tonic::async_trait]
impl market_server::Market for Market {
    async fn get_price(&self, request: Request<GetPriceRequest>) -> Result<Response<Price>, Status> {
        let instrument = find(&request.get_ref().symbol)?;
        Ok(Response::new(price_after(instrument, 0)))
    }

    type WatchPricesStream = BoxStream<Price>;

    async fn watch_prices(
        &self,
        request: Request<WatchPricesRequest>,
    ) -> Result<Response<Self::WatchPricesStream>, Status> {
        let instrument = find(&request.get_ref().symbol)?;
        // The first tick comes at once.
        let mut seconds = 0..;
        let ticks = IntervalStream::new(interval(Duration::from_secs(1)));
        let prices = ticks.map(move |_| Ok(price_after(instrument, seconds.next().unwrap_or_default())));
        Ok(Response::new(Box::pin(prices)))
    }

    async fn upload_candles(
        &self,
        request: Request<Streaming<Candle>>,
    ) -> Result<Response<UploadCandlesResponse>, Status> {
        let mut candles = request.into_inner();
        let mut count = 0;
        while let Some(_candle) = candles.message().await? {
            count += 1;
        }
        Ok(Response::new(UploadCandlesResponse { candles: count }))
    }

    type ChatStream = BoxStream<ChatResponse>;

    async fn chat(
        &self,
        request: Request<Streaming<ChatRequest>>,
    ) -> Result<Response<Self::ChatStream>, Status> {
        let meter = request.messages()?.clone();
        let details = self.details.clone();
        let answers = request.into_inner().then(move |message| {
            // Charged before it is answered. The stream ends with the first message that is refused.
            let charged = meter.charge(1);
            let details = details.clone();
            async move {
                let ChatRequest { symbol } = message?;
                charged.await.map_err(|denial| details.status(&denial))?;
                Ok(match market::find(&symbol) {
                    Some(found) => ChatResponse { symbol: found.symbol.to_owned(), alert: found.alert() },
                    None => ChatResponse { symbol, alert: market::NO_SUCH_SYMBOL.to_owned() },
                })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

fn find(symbol: &str) -> Result<&'static Instrument, Status> {
    market::find(symbol).ok_or_else(|| Status::not_found(market::NO_SUCH_SYMBOL))
}

fn price_after(instrument: &Instrument, seconds: u64) -> Price {
    Price { symbol: instrument.symbol.to_owned(), price: instrument.price_after(seconds) }
}

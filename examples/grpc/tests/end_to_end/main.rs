//! The example as clients use it: with grpcio, with gRPC-Web over HTTP/1.1, and as JSON. All over real sockets.
#![cfg(test)]

mod http;
mod json;
mod kinds;
mod metadata;
mod python;
mod reflection;
mod refusals;
mod revocation;
mod service;
mod shutdown;
mod web;

/// The RPCs of the example.
const GET_PRICE: &str = "tollgate.demo.v1.Market/GetPrice";
const WATCH_PRICES: &str = "tollgate.demo.v1.Market/WatchPrices";
const UPLOAD_CANDLES: &str = "tollgate.demo.v1.Market/UploadCandles";
const CHAT: &str = "tollgate.demo.v1.Market/Chat";

/// One unary RPC, and each kind of stream.
const EVERY_KIND: [&str; 4] = [GET_PRICE, WATCH_PRICES, UPLOAD_CANDLES, CHAT];

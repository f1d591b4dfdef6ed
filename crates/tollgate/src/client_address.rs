//! STUB
use std::net::IpAddr;
use tollgate_core::Head;
/// stub
#[derive(Clone, Debug)]
pub struct ClientAddress;
impl ClientAddress {
    /// stub
    pub fn find(&self, _head: Head<'_>) -> Option<IpAddr> {
        None
    }
}

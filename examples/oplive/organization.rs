//! The caller's organization, and what belongs to it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use axum::extract::FromRequestParts;
use http::request::Parts;
use tollgate::DenialKind;
use tollgate_axum::{Authenticated, Refused};

/// The organization of the caller's key: every key has one.
pub(crate) struct Organization(pub(crate) Box<str>);

impl<S: Sync> FromRequestParts<S> for Organization {
    type Rejection = Refused;

    async fn from_request_parts(head: &mut Parts, state: &S) -> Result<Self, Refused> {
        let Authenticated(caller) = Authenticated::from_request_parts(head, state).await?;
        let organization = caller.tenant().ok_or(DenialKind::Forbidden)?;
        Ok(Self(organization.into()))
    }
}

/// Limit per organization. Another item removes the oldest one.
const MAX_ITEMS: usize = 1_000;

/// Items of organizations, in memory. All keys of an organization find its items, and no other key does.
#[derive(Debug)]
pub(crate) struct OfOrganizations<T>(Arc<Mutex<HashMap<Box<str>, Items<T>>>>);

/// Items by identifier, oldest first.
type Items<T> = VecDeque<(String, T)>;

impl<T: Clone> OfOrganizations<T> {
    pub(crate) fn add(&self, organization: &Organization, id: String, item: T) {
        self.items(organization, |items| {
            if items.len() == MAX_ITEMS {
                items.pop_front();
            }
            items.push_back((id, item));
        });
    }

    pub(crate) fn find(&self, organization: &Organization, id: &str) -> Option<T> {
        self.items(organization, |items| {
            let (_, item) = items.iter().find(|(item_id, _)| item_id == id)?;
            Some(item.clone())
        })
    }

    fn items<R>(&self, organization: &Organization, act: impl FnOnce(&mut Items<T>) -> R) -> R {
        let mut organizations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(organizations.entry(organization.0.clone()).or_default())
    }
}

impl<T> Clone for OfOrganizations<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for OfOrganizations<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

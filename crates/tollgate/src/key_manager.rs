//! Manages keys: issues, lists, updates, rotates, revokes and deletes them.

mod apart;
mod check;
mod new_key;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tollgate_core::{
    clock::{Clock, SystemClock},
    denial::Unavailable,
    key::{ApiKey, KeyFormat, Peppers},
    manage::{
        Actor, Command, HistoryQuery, KeyAdmin, KeyAdminError, KeyChange, KeyDetails, KeyEvent, KeyQuery,
        KeyUpdate, Page, TenantChange, TenantDetails,
    },
    scope::Scopes,
    verify::Plan,
};

pub use new_key::NewKey;

use crate::request_id::new_uuid;

/// Manages the keys in a store.
///
/// It generates the secrets, validates requests (also against the [bounds](crate::bounds) of what is stored), and gives the store
/// digests only. A secret is returned by [`issue`](Self::issue) and [`rotate`](Self::rotate), and is stored nowhere. Tenants are kept
/// apart, even if the store has a mistake there.
///
/// ```
/// use tollgate::{
///     KeyFormat, MemoryKeys, Scopes,
///     manage::{Actor, KeyManager, NewKey},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryKeys::new();
/// let manager = KeyManager::new(KeyFormat::new("sk")?, store.clone())
///     .with_known_scopes(Scopes::new(["read", "write"])?)
///     .with_default_scopes(Scopes::new(["read"])?);
///
/// let ada = Actor::of_tenant("ada", "acme"); // from the session of the account page
/// let issued = manager.issue(NewKey::named("my-backtest-notebook"), &ada).await?;
/// println!("Copy it now. It is not shown again: {}", issued.secret.expose_secret());
///
/// let typo = NewKey::named("other").with_scopes(Scopes::new(["raed"])?);
/// let error = manager.issue(typo, &ada).await.unwrap_err();
/// assert_eq!(error.to_string(), "unknown scope `raed`: known scopes are `read`, `write`");
///
/// manager.revoke(&issued.details.id, &ada).await?;
/// # Ok(())
/// # }
/// ```
///
/// Clones manage the same keys.
#[derive(Clone)]
pub struct KeyManager {
    store: Arc<dyn KeyAdmin>,
    rules: Arc<Rules>,
}

#[derive(Clone)]
struct Rules {
    format: KeyFormat,
    peppers: Peppers,
    clock: Arc<dyn Clock>,
    known_scopes: Option<Scopes>,
    default_scopes: Scopes,
}

/// A newly issued or rotated key.
#[derive(Debug)]
#[non_exhaustive]
pub struct IssuedKey {
    /// The key's details.
    pub details: KeyDetails,
    /// The secret. Show it to the owner now: it is not stored.
    pub secret: ApiKey,
}

impl KeyManager {
    /// Manages the keys in `store`. New keys have this format and are stored as their plain SHA-256.
    pub fn new(format: KeyFormat, store: impl KeyAdmin) -> Self {
        let rules = Rules {
            format,
            peppers: Peppers::none(),
            clock: Arc::new(SystemClock),
            known_scopes: None,
            default_scopes: Scopes::none(),
        };
        Self { store: Arc::new(store), rules: Arc::new(rules) }
    }

    /// Stores digests made with the current pepper. Give the verifier the same peppers.
    pub fn with_peppers(mut self, peppers: Peppers) -> Self {
        self.rules_mut().peppers = peppers;
        self
    }

    /// Sets the clock. Default: the system clock.
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.rules_mut().clock = Arc::new(clock);
        self
    }

    /// Restricts the scopes of keys to these. A wildcard, such as `jobs:*`, must be listed itself. Default: every valid scope is
    /// allowed.
    pub fn with_known_scopes(mut self, scopes: Scopes) -> Self {
        self.rules_mut().known_scopes = Some(scopes);
        self
    }

    /// Sets the scopes of a key that is issued without scopes. Default: none.
    pub fn with_default_scopes(mut self, scopes: Scopes) -> Self {
        self.rules_mut().default_scopes = scopes;
        self
    }

    /// The scopes that keys may have; `None`: every valid scope.
    pub fn known_scopes(&self) -> Option<&Scopes> {
        self.rules.known_scopes.as_ref()
    }

    fn rules_mut(&mut self) -> &mut Rules {
        Arc::make_mut(&mut self.rules)
    }

    /// Issues a key. If the actor manages one tenant, the key belongs to that tenant.
    ///
    /// # Errors
    /// [`KeyAdminError::Invalid`] for invalid details, [`NotPermitted`](KeyAdminError::NotPermitted) for a key of another tenant,
    /// [`NameTaken`](KeyAdminError::NameTaken), [`Unavailable`](KeyAdminError::Unavailable).
    pub async fn issue(&self, key: NewKey, actor: &Actor) -> Result<IssuedKey, KeyAdminError> {
        let now = self.now();
        let mut details = key.into_details(format!("key_{}", new_uuid(now).simple()), now);
        if details.tenant.is_none() {
            details.tenant = actor.tenant().map(Into::into);
        }
        if !actor.manages(details.tenant.as_deref()) {
            return Err(KeyAdminError::NotPermitted);
        }
        if details.scopes.is_empty() {
            details.scopes = self.rules.default_scopes.clone();
        }
        check::scopes(&details.scopes, self.rules.known_scopes.as_ref())?;
        check::expiry(details.expires_at, now)?;

        let secret = self.generate(details.environment)?;
        details.display_prefix = secret.display_prefix().into();
        let digest = self.rules.peppers.current(secret.expose_secret());
        let change = KeyChange::Issue { details: Box::new(details), digest };
        Ok(IssuedKey { details: self.change(change, actor, now).await?, secret })
    }

    /// Gives a key a new secret. The former secret ends immediately, or after `overlap`, which leaves time to replace it
    /// where it is used.
    ///
    /// With an overlap, response bodies that stream under the former secret are not cut off when it ends.
    ///
    /// # Errors
    /// [`NotFound`](KeyAdminError::NotFound), [`Revoked`](KeyAdminError::Revoked),
    /// [`Unavailable`](KeyAdminError::Unavailable); [`Invalid`](KeyAdminError::Invalid) for an overlap of more than 366 days.
    pub async fn rotate(
        &self,
        id: &str,
        overlap: Option<Duration>,
        actor: &Actor,
    ) -> Result<IssuedKey, KeyAdminError> {
        let now = self.now();
        let former_until = check::overlap(overlap, now)?;
        let environment = self.show(id, actor).await?.environment;
        let secret = self.generate(environment)?;
        let change = KeyChange::Rotate {
            id: id.into(),
            digest: self.rules.peppers.current(secret.expose_secret()),
            display_prefix: secret.display_prefix().into(),
            former_until,
        };
        Ok(IssuedKey { details: self.change(change, actor, now).await?, secret })
    }

    /// Changes the details of a key.
    ///
    /// # Errors
    /// As [`issue`](Self::issue), and [`NotFound`](KeyAdminError::NotFound) and [`Revoked`](KeyAdminError::Revoked).
    pub async fn update(
        &self,
        id: &str,
        mut update: KeyUpdate,
        actor: &Actor,
    ) -> Result<KeyDetails, KeyAdminError> {
        let now = self.now();
        update.expires_at = update.expires_at.map(|at| at.map(truncate));
        let scopes = update.scopes.as_ref();
        scopes.map_or(Ok(()), |scopes| check::scopes(scopes, self.rules.known_scopes.as_ref()))?;
        check::expiry(update.expires_at.flatten(), now)?;
        self.change(KeyChange::Update { id: id.into(), update: Box::new(update) }, actor, now).await
    }

    /// Renames a key.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub async fn rename(&self, id: &str, name: &str, actor: &Actor) -> Result<KeyDetails, KeyAdminError> {
        self.update(id, KeyUpdate::new().with_name(name), actor).await
    }

    /// Revokes a key. When this returns, this process refuses it. Its record and its history are kept. Idempotent.
    ///
    /// # Errors
    /// [`NotFound`](KeyAdminError::NotFound), [`Unavailable`](KeyAdminError::Unavailable).
    pub async fn revoke(&self, id: &str, actor: &Actor) -> Result<KeyDetails, KeyAdminError> {
        self.change(KeyChange::Revoke { id: id.into() }, actor, self.now()).await
    }

    /// Deletes a key and its record permanently. Its history is kept.
    ///
    /// # Errors
    /// [`NotFound`](KeyAdminError::NotFound), [`Unavailable`](KeyAdminError::Unavailable).
    pub async fn delete(&self, id: &str, actor: &Actor) -> Result<KeyDetails, KeyAdminError> {
        self.change(KeyChange::Delete { id: id.into() }, actor, self.now()).await
    }

    /// Returns one key.
    ///
    /// # Errors
    /// [`NotFound`](KeyAdminError::NotFound), [`Unavailable`](KeyAdminError::Unavailable).
    pub async fn show(&self, id: &str, actor: &Actor) -> Result<KeyDetails, KeyAdminError> {
        let page = self.list(KeyQuery::one(id), actor).await?;
        page.items.into_iter().next().ok_or(KeyAdminError::NotFound)
    }

    /// The keys that match a query and that the actor manages, newest first. Keys that a store returns although the query excludes
    /// them are left out, and reported in the log.
    ///
    /// # Errors
    /// [`InvalidCursor`](KeyAdminError::InvalidCursor), [`Unavailable`](KeyAdminError::Unavailable).
    pub async fn list(&self, mut query: KeyQuery, actor: &Actor) -> Result<Page<KeyDetails>, KeyAdminError> {
        if !apart::confine(&mut query.tenant, actor) {
            return Ok(Page::new(Vec::new(), None));
        }
        let mut page = self.store.list(&query).await?;
        apart::only_selected(&mut page, &query);
        Ok(page)
    }

    /// The events of the keys that the actor manages, latest first. Includes deleted keys.
    ///
    /// # Errors
    /// [`InvalidCursor`](KeyAdminError::InvalidCursor), [`Unavailable`](KeyAdminError::Unavailable).
    pub async fn history(
        &self,
        mut query: HistoryQuery,
        actor: &Actor,
    ) -> Result<Page<KeyEvent>, KeyAdminError> {
        if !apart::confine(&mut query.tenant, actor) {
            return Ok(Page::new(Vec::new(), None));
        }
        let mut page = self.store.history(&query).await?;
        apart::only_selected_events(&mut page, &query);
        Ok(page)
    }

    /// Suspends a tenant. When this returns, this process refuses all its keys, including those issued later.
    ///
    /// # Errors
    /// [`NotPermitted`](KeyAdminError::NotPermitted), [`Unavailable`](KeyAdminError::Unavailable).
    pub async fn suspend_tenant(&self, tenant: &str, actor: &Actor) -> Result<TenantDetails, KeyAdminError> {
        self.change_tenant(TenantChange::Suspend { tenant: tenant.into() }, actor).await
    }

    /// Resumes a suspended tenant. Revoked keys stay revoked.
    ///
    /// # Errors
    /// [`NotPermitted`](KeyAdminError::NotPermitted), [`Unavailable`](KeyAdminError::Unavailable).
    pub async fn resume_tenant(&self, tenant: &str, actor: &Actor) -> Result<TenantDetails, KeyAdminError> {
        self.change_tenant(TenantChange::Resume { tenant: tenant.into() }, actor).await
    }

    /// Sets or removes the plan of a tenant. When this returns, all its keys have it in this process, except those with a plan of
    /// their own. Keys that are issued later have it, too.
    ///
    /// ```
    /// # use tollgate::{KeyFormat, MemoryKeys, Plan, manage::{Actor, KeyManager, NewKey}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let manager = KeyManager::new(KeyFormat::new("sk")?, MemoryKeys::new());
    /// let billing = Actor::new("billing"); // the webhook of the payment provider
    /// let issued = manager.issue(NewKey::named("build").with_tenant("acme"), &billing).await?;
    /// manager.set_tenant_plan("acme", Some(Plan::active("pro")), &billing).await?;
    /// let key = manager.show(&issued.details.id, &billing).await?;
    /// assert_eq!(key.effective_plan().map(Plan::tier), Some("pro"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NotPermitted`](KeyAdminError::NotPermitted), [`Unavailable`](KeyAdminError::Unavailable).
    pub async fn set_tenant_plan(
        &self,
        tenant: &str,
        plan: Option<Plan>,
        actor: &Actor,
    ) -> Result<TenantDetails, KeyAdminError> {
        self.change_tenant(TenantChange::SetPlan { tenant: tenant.into(), plan }, actor).await
    }

    /// Returns a tenant: its plan, and whether it is suspended.
    ///
    /// # Errors
    /// [`NotPermitted`](KeyAdminError::NotPermitted) for an actor of another tenant, [`Unavailable`](KeyAdminError::Unavailable).
    pub async fn tenant(&self, tenant: &str, actor: &Actor) -> Result<TenantDetails, KeyAdminError> {
        if !actor.manages(Some(tenant)) {
            return Err(KeyAdminError::NotPermitted);
        }
        let details = self.store.tenant(tenant).await?;
        apart::check_tenant(&details, tenant)?;
        Ok(details)
    }

    async fn change_tenant(
        &self,
        change: TenantChange,
        actor: &Actor,
    ) -> Result<TenantDetails, KeyAdminError> {
        if actor.tenant().is_some() {
            return Err(KeyAdminError::NotPermitted);
        }
        let command = Command::new(change, actor.clone(), self.now());
        command.check()?;
        self.store.change_tenant(command).await
    }

    /// Passes a change to the store. An actor of a tenant changes only keys that it can see: a store with a mistake must not revoke
    /// the key of another tenant.
    async fn change(
        &self,
        change: KeyChange,
        actor: &Actor,
        now: SystemTime,
    ) -> Result<KeyDetails, KeyAdminError> {
        let id: Box<str> = change.id().into();
        let command = Command::new(change, actor.clone(), now);
        command.check()?;
        if actor.tenant().is_some() && !matches!(command.change, KeyChange::Issue { .. }) {
            self.show(&id, actor).await?;
        }
        let changed = self.store.change(command).await?;
        apart::check_changed(&changed, &id, actor)?;
        Ok(changed)
    }

    fn generate(&self, environment: tollgate_core::key::Environment) -> Result<ApiKey, KeyAdminError> {
        let generated = self.rules.format.generate(environment);
        generated.map_err(|error| KeyAdminError::Unavailable(Unavailable::new(error.to_string())))
    }

    /// The current time of its clock, in whole microseconds.
    pub fn now(&self) -> SystemTime {
        truncate(self.rules.clock.now())
    }
}

/// Truncates to whole microseconds, the precision of the databases, so that a stored instant equals the returned one.
fn truncate(instant: SystemTime) -> SystemTime {
    let since_epoch = instant.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let below = Duration::from_nanos(u64::from(since_epoch.subsec_nanos() % 1_000));
    instant.checked_sub(below).unwrap_or(instant)
}

impl fmt::Debug for KeyManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyManager")
            .field("format", &self.rules.format)
            .field("known_scopes", &self.rules.known_scopes)
            .field("default_scopes", &self.rules.default_scopes)
            .finish_non_exhaustive()
    }
}

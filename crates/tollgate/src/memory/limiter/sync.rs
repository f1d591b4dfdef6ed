//! Synchronisation types: the standard library's, or loom's, which tests every order of threads. Under loom, nothing may be
//! random.

#[cfg(not(tollgate_loom))]
pub(super) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
};

#[cfg(not(tollgate_loom))]
pub(super) use hashbrown::DefaultHashBuilder as GroupHasher;

#[cfg(not(tollgate_loom))]
pub(super) use crate::memory::lock;

#[cfg(tollgate_loom)]
pub(super) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
};

#[cfg(tollgate_loom)]
pub(super) type GroupHasher = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

#[cfg(tollgate_loom)]
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

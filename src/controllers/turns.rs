//! Admits expensive decisions: one session at a time, and namespaces in the order of their arrival.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::live::Busy;

/// The one turn, and the namespaces that wait for it.
#[derive(Debug, Default)]
pub struct Turns {
    turn: tokio::sync::Mutex<()>,
    /// The namespaces that have a waiting reconcile.
    waiting: Mutex<BTreeSet<String>>,
}

impl Turns {
    /// Waits for the turn, which ends when it is dropped. One reconcile of each namespace may wait, first come first served. Others are
    /// requeued: no namespace is in the line twice, and none occupies all workers.
    ///
    /// # Errors
    /// When a reconcile of the namespace is already waiting.
    pub(super) async fn turn(&self, namespace: &str) -> Result<tokio::sync::MutexGuard<'_, ()>, Busy> {
        let _place = Place::of(&self.waiting, namespace)?;
        Ok(self.turn.lock().await)
    }
}

/// The place of a namespace in the line, while its reconcile waits.
struct Place<'a> {
    waiting: &'a Mutex<BTreeSet<String>>,
    namespace: &'a str,
}

impl<'a> Place<'a> {
    fn of(waiting: &'a Mutex<BTreeSet<String>>, namespace: &'a str) -> Result<Self, Busy> {
        if lock(waiting).insert(namespace.into()) { Ok(Self { waiting, namespace }) } else { Err(Busy) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(self.waiting).remove(self.namespace);
    }
}

fn lock(waiting: &Mutex<BTreeSet<String>>) -> MutexGuard<'_, BTreeSet<String>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, poll};

    use super::*;

    #[tokio::test]
    async fn namespaces_come_in_turn_and_none_stands_in_the_line_twice() {
        let turns = Turns::default();
        let first = turns.turn("greedy").now_or_never().unwrap().unwrap();
        let mut second = Box::pin(turns.turn("greedy"));
        assert!(poll!(&mut second).is_pending());
        assert!(
            turns.turn("greedy").now_or_never().unwrap().is_err(),
            "a reconcile of the namespace is already waiting"
        );
        let mut other = Box::pin(turns.turn("other"));
        assert!(poll!(&mut other).is_pending());
        drop(first);
        let second = second.now_or_never().unwrap().unwrap();
        let mut third = Box::pin(turns.turn("greedy"));
        assert!(poll!(&mut third).is_pending());
        drop(second);
        assert!(poll!(&mut third).is_pending(), "the other namespace came before");
        drop(other.now_or_never().unwrap().unwrap());
        assert!(third.now_or_never().unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_reconcile_that_is_cancelled_leaves_the_queue() {
        let turns = Turns::default();
        let turn = turns.turn("a").await.unwrap();
        assert!(turns.turn("b").now_or_never().is_none(), "it waited and was cancelled");
        drop(turn);
        assert!(turns.turn("b").now_or_never().unwrap().is_ok());
    }
}

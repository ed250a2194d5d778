//! Saved views.

use crate::support::{apply, assert_conflict, conformance};
use perfwatch_store::accounts::{Account, Role};
use perfwatch_store::saved_views::SavedView;
use perfwatch_store::*;
use std::sync::Arc;
use uuid::Uuid;

conformance! {
    view_names_are_unique_per_owner,
    views_are_listed_to_their_owner_or_if_shared,
    views_are_deleted_with_their_account,
}

fn view(owner: Uuid, name: &str, shared: bool) -> SavedView {
    let body = "{\"queries\":[]}".to_owned();
    SavedView { id: Uuid::now_v7(), owner, name: name.to_owned(), shared, body, updated_ms: 10 }
}

async fn view_names_are_unique_per_owner(store: &Arc<dyn Store>) {
    let store = &**store;
    let (alice, bob) = (Uuid::now_v7(), Uuid::now_v7());
    let (first, second, foreign) =
        (view(alice, "CPU", false), view(alice, "Disk", false), view(bob, "CPU", true));
    apply(store, |tx| {
        tx.saved_views().insert(&first);
        tx.saved_views().insert(&second);
        tx.saved_views().insert(&foreign);
    })
    .await;
    assert_conflict(store, |tx| tx.saved_views().insert(&view(alice, "CPU", true))).await;
    let renamed = SavedView { name: "CPU".to_owned(), updated_ms: 20, ..second.clone() };
    assert_conflict(store, |tx| tx.saved_views().update(&renamed, 10)).await;
    // A change that was decided on an outdated view.
    let changed = SavedView { name: "I/O".to_owned(), shared: true, body: "{}".to_owned(), ..renamed };
    assert_conflict(store, |tx| tx.saved_views().update(&changed, 9)).await;
    apply(store, |tx| tx.saved_views().update(&changed, 10)).await;
    assert_eq!(SavedView::get(store, second.id).await.unwrap(), Some(changed));
    apply(store, |tx| tx.saved_views().delete(first.id)).await;
    assert_eq!(SavedView::get(store, first.id).await.unwrap(), None);
    assert_conflict(store, |tx| tx.saved_views().delete(first.id)).await;
    apply(store, |tx| {
        tx.saved_views().delete(second.id);
        tx.saved_views().delete(foreign.id);
    })
    .await;
}

async fn views_are_listed_to_their_owner_or_if_shared(store: &Arc<dyn Store>) {
    let store = &**store;
    let (alice, bob) = (Uuid::now_v7(), Uuid::now_v7());
    let (private, shared, foreign) = (view(alice, "b", false), view(alice, "c", true), view(bob, "a", true));
    apply(store, |tx| {
        for view in [&private, &shared, &foreign] {
            tx.saved_views().insert(view);
        }
    })
    .await;
    assert_eq!(
        SavedView::list(store, alice).await.unwrap(),
        [foreign.clone(), private.clone(), shared.clone()]
    );
    assert_eq!(SavedView::list(store, bob).await.unwrap(), [foreign.clone(), shared.clone()]);
    apply(store, |tx| {
        for view in [&private, &shared, &foreign] {
            tx.saved_views().delete(view.id);
        }
    })
    .await;
}

async fn views_are_deleted_with_their_account(store: &Arc<dyn Store>) {
    let store = &**store;
    let account = Account::new("vera".to_owned(), Role::Viewer, 0);
    let view = view(account.id, "CPU", true);
    apply(store, |tx| {
        tx.accounts().insert(&account);
        tx.saved_views().insert(&view);
    })
    .await;
    apply(store, |tx| tx.accounts().delete(account.id)).await;
    assert_eq!(SavedView::get(store, view.id).await.unwrap(), None);
}

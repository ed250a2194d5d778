//! Status pages, and the availability of their hosts.

use crate::support::{apply, assert_conflict, conformance, host};
use perfwatch_model::HostId;
use perfwatch_store::status_pages::{AvailabilityDay, StatusPage};
use perfwatch_store::*;
use std::sync::Arc;
use uuid::Uuid;

conformance! {
    status_page_changes_are_decided_on_the_current_page,
    status_page_tokens_are_unique,
    availability_days_are_replaced_and_expire,
    availability_is_deleted_with_its_host,
}

fn page(title: &str, token: u8) -> StatusPage {
    StatusPage {
        id: Uuid::now_v7(),
        token_hash: [token; 32],
        title: title.to_owned(),
        body: "{}".to_owned(),
        enabled: true,
        expires_ms: 1_000,
        owner: Uuid::now_v7(),
        owner_epoch: 3,
        owner_token: None,
        created_ms: 10,
        updated_ms: 10,
    }
}

fn day(number: i64, up_ms: i64) -> AvailabilityDay {
    let rest_ms = 86_400_000 - up_ms;
    AvailabilityDay {
        day: number,
        up_ms,
        down_ms: rest_ms / 2,
        maintenance_ms: 1,
        unknown_ms: rest_ms - rest_ms / 2 - 1,
        settled: up_ms > 0,
    }
}

async fn status_page_changes_are_decided_on_the_current_page(store: &Arc<dyn Store>) {
    let store = &**store;
    let first = page("Shop", 1);
    let second = StatusPage { owner_token: Some(Uuid::now_v7()), created_ms: 20, ..page("Internal", 2) };
    apply(store, |tx| {
        tx.status_pages().insert(&first);
        tx.status_pages().insert(&second);
    })
    .await;
    assert_eq!(StatusPage::list(store).await.unwrap(), [first.clone(), second.clone()]);
    let changed = StatusPage {
        title: "Store".to_owned(),
        token_hash: [3; 32],
        body: "{\"groups\":[]}".to_owned(),
        enabled: false,
        expires_ms: 2_000,
        owner: Uuid::now_v7(),
        owner_epoch: 4,
        owner_token: Some(Uuid::now_v7()),
        updated_ms: 30,
        ..first.clone()
    };
    assert_conflict(store, |tx| tx.status_pages().update(&changed, 9)).await;
    apply(store, |tx| tx.status_pages().update(&changed, 10)).await;
    assert_eq!(StatusPage::list(store).await.unwrap(), [changed, second.clone()]);
    apply(store, |tx| tx.status_pages().delete(first.id)).await;
    assert_eq!(StatusPage::list(store).await.unwrap(), std::slice::from_ref(&second));
    assert_conflict(store, |tx| tx.status_pages().delete(first.id)).await;
    apply(store, |tx| tx.status_pages().delete(second.id)).await;
}

async fn status_page_tokens_are_unique(store: &Arc<dyn Store>) {
    let store = &**store;
    let first = page("Shop", 4);
    apply(store, |tx| tx.status_pages().insert(&first)).await;
    assert_conflict(store, |tx| tx.status_pages().insert(&page("Copy", 4))).await;
    apply(store, |tx| tx.status_pages().delete(first.id)).await;
}

async fn availability_days_are_replaced_and_expire(store: &Arc<dyn Store>) {
    let store = &**store;
    let (first, second) = (HostId::generate(), HostId::generate());
    apply(store, |tx| {
        for number in [20, 18, 19] {
            tx.status_pages().put_day(first, &day(number, number));
        }
        tx.status_pages().put_day(second, &day(19, 5));
    })
    .await;
    let list = |host, from_day| AvailabilityDay::list(store, host, from_day);
    assert_eq!(list(first, 19).await.unwrap(), [day(19, 19), day(20, 20)]);
    assert_eq!(list(second, 0).await.unwrap(), [day(19, 5)]);
    apply(store, |tx| tx.status_pages().put_day(first, &day(20, 0))).await;
    assert_eq!(list(first, 20).await.unwrap(), [day(20, 0)]);
    apply(store, |tx| tx.status_pages().delete_days_before(20)).await;
    assert_eq!(list(first, 0).await.unwrap(), [day(20, 0)]);
    assert_eq!(list(second, 0).await.unwrap(), []);
    apply(store, |tx| tx.status_pages().delete_days_before(21)).await;
}

async fn availability_is_deleted_with_its_host(store: &Arc<dyn Store>) {
    let store = &**store;
    let record = HostRecord { id: HostId::generate(), ..host(9) };
    let other = HostId::generate();
    store.upsert_host(record.clone()).await.unwrap();
    apply(store, |tx| {
        tx.status_pages().put_day(record.id, &day(20, 1));
        tx.status_pages().put_day(other, &day(20, 2));
    })
    .await;
    apply(store, |tx| tx.hosts().delete(record.id)).await;
    assert_eq!(AvailabilityDay::list(store, record.id, 0).await.unwrap(), []);
    assert_eq!(AvailabilityDay::list(store, other, 0).await.unwrap(), [day(20, 2)]);
    apply(store, |tx| tx.status_pages().delete_days_before(21)).await;
}

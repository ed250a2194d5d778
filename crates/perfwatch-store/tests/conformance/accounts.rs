//! Accounts, sessions, tokens, agents, settings and the audit log.

use crate::support::{apply, assert_conflict, commit, conformance};
use perfwatch_model::HostId;
use perfwatch_store::accounts::*;
use perfwatch_store::agents::*;
use perfwatch_store::audit::*;
use perfwatch_store::revision::Revision;
use perfwatch_store::settings::*;
use perfwatch_store::*;
use std::sync::Arc;
use uuid::Uuid;

conformance! {
    account_names_are_unique,
    sessions_and_tokens_are_deleted_with_their_account,
    settings_are_replaced,
    enrollment_uses_are_limited,
    revisions_detect_changes,
    audit_log_is_filtered_and_purged,
    audit_entries_are_deleted_by_principal,
    login_addresses_are_listed,
}

fn account(name: &str) -> Account {
    Account {
        id: Uuid::now_v7(),
        name: name.to_owned(),
        role: Role::Operator,
        password: Some("$argon2id$…".to_owned()),
        totp_secret: Some(vec![0, 159, 255]),
        totp_step: 3,
        recovery_codes: vec!["ab".to_owned(), "cd".to_owned()],
        oidc_subject: None,
        host_tags: vec!["environment=production".to_owned()],
        enabled: true,
        token_epoch: 1,
        created_ms: 1_700_000_000_000,
        last_login_ms: None,
    }
}

async fn account_names_are_unique(store: &Arc<dyn Store>) {
    let store = &**store;
    let mut alice = account("alice");
    apply(store, |tx| tx.accounts().insert(&alice)).await;
    assert_conflict(store, |tx| tx.accounts().insert(&account("alice"))).await;
    let bob = Account {
        password: None,
        totp_secret: None,
        oidc_subject: Some("https://id bob".to_owned()),
        ..account("bob")
    };
    // The commit is atomic: bob is not inserted because the token does not exist.
    assert_conflict(store, |tx| {
        tx.accounts().insert(&bob);
        tx.tokens().delete(Uuid::now_v7());
    })
    .await;
    assert_eq!(Account::list(store).await.unwrap(), [alice.clone()]);
    alice.role = Role::Admin;
    alice.last_login_ms = Some(5);
    apply(store, |tx| {
        tx.accounts().insert(&bob);
        tx.accounts().update(&alice);
    })
    .await;
    assert_eq!(Account::list(store).await.unwrap(), [alice.clone(), bob.clone()]);
    apply(store, |tx| {
        tx.accounts().delete(bob.id);
        tx.accounts().delete(alice.id);
    })
    .await;
    assert_conflict(store, |tx| tx.accounts().delete(alice.id)).await;
}

async fn revisions_detect_changes(store: &Arc<dyn Store>) {
    let store = &**store;
    apply(store, |tx| {
        tx.revision(Revision::Access).init();
        tx.revision(Revision::Alerting).init();
    })
    .await;
    apply(store, |tx| tx.revision(Revision::Access).bump(0)).await;
    apply(store, |tx| tx.revision(Revision::Access).bump(1)).await;
    // A change that was decided on an outdated state.
    let carol = account("carol");
    assert_conflict(store, |tx| {
        tx.accounts().insert(&carol);
        tx.revision(Revision::Access).bump(1);
    })
    .await;
    assert!(Account::list(store).await.unwrap().is_empty());
    // A second initialization does not reset the counter.
    apply(store, |tx| tx.revision(Revision::Access).init()).await;
    assert_eq!(Revision::Access.get(store).await.unwrap(), 2);
    assert_eq!(Revision::Alerting.get(store).await.unwrap(), 0);
}

async fn settings_are_replaced(store: &Arc<dyn Store>) {
    let store = &**store;
    apply(store, |tx| {
        tx.settings().put("key", "one");
        tx.settings().put("key", "two");
    })
    .await;
    assert_eq!(get_setting(store, "key").await.unwrap().as_deref(), Some("two"));
    assert_eq!(get_setting(store, "none").await.unwrap(), None);
    // A change that was decided on another value is a conflict.
    let replace = async |expected: Option<&str>, value: &str| {
        store.commit(Transaction::build(|tx| tx.settings().replace("document", expected, value))).await
    };
    assert!(matches!(replace(Some("a"), "b").await, Err(CommitError::Conflict)));
    replace(None, "a").await.unwrap();
    assert!(matches!(replace(None, "b").await, Err(CommitError::Conflict)));
    replace(Some("a"), "b").await.unwrap();
    assert!(matches!(replace(Some("a"), "c").await, Err(CommitError::Conflict)));
    assert_eq!(get_setting(store, "document").await.unwrap().as_deref(), Some("b"));
    let id = installation_id(store).await.unwrap();
    assert_eq!(installation_id(store).await.unwrap(), id);
}

async fn sessions_and_tokens_are_deleted_with_their_account(store: &Arc<dyn Store>) {
    let store = &**store;
    let (alice, bob) = (account("alice"), account("bob"));
    apply(store, |tx| {
        tx.accounts().insert(&alice);
        tx.accounts().insert(&bob);
    })
    .await;
    let session = |number: u8, account: &Account, last_used_ms| Session {
        hash: [number; 32],
        account: account.id,
        created_ms: 10,
        last_used_ms,
        address: "192.0.2.1".to_owned(),
        user_agent: "Firefox".to_owned(),
    };
    let (used, expired) = (session(1, &alice, 20), session(2, &bob, 11));
    apply(store, |tx| {
        tx.sessions().insert(&used);
        tx.sessions().insert(&expired);
    })
    .await;
    apply(store, |tx| {
        tx.sessions().touch(&used.hash, 30);
        tx.sessions().touch(&used.hash, 25);
    })
    .await;
    apply(store, |tx| tx.sessions().delete_expired(15, 5)).await;
    assert_eq!(Session::list(store).await.unwrap(), [Session { last_used_ms: 30, ..used }]);
    let token = Token { created_ms: 10, ..Token::new([7; 32], alice.id, "deploy".into(), "read".into(), 10) };
    apply(store, |tx| {
        tx.tokens().insert(&token);
        tx.tokens().touch(token.id, 40);
    })
    .await;
    assert_eq!(Token::list(store).await.unwrap(), [Token { last_used_ms: Some(40), ..token }]);
    apply(store, |tx| tx.accounts().delete(alice.id)).await;
    assert!(Session::list(store).await.unwrap().is_empty() && Token::list(store).await.unwrap().is_empty());
    apply(store, |tx| tx.accounts().delete(bob.id)).await;
}

async fn enrollment_uses_are_limited(store: &Arc<dyn Store>) {
    let store = &**store;
    let token = EnrollmentToken {
        id: Uuid::now_v7(),
        hash: [1; 32],
        name: "web servers".to_owned(),
        tags: vec!["role=web".to_owned()],
        uses_left: 2,
        created_by: "user alice".to_owned(),
        created_ms: 10,
        expires_ms: 100,
        host: Some(HostId::generate()),
        created_by_token: Some(Uuid::now_v7()),
    };
    apply(store, |tx| tx.enrollment_tokens().insert(&token)).await;
    let agent = |number: u8| Agent {
        id: Uuid::now_v7(),
        hash: [number; 32],
        host: HostId::generate(),
        enrollment_token: token.name.clone(),
        address: "192.0.2.7".to_owned(),
        created_ms: 20,
        last_seen_ms: 20,
        revoked_ms: None,
        enrollment_token_id: Some(token.id),
        previous_hash: Some([9; 32]),
    };
    let enroll = |tx: &mut Transaction, agent: &Agent| {
        tx.enrollment_tokens().consume(token.id, 50);
        tx.agents().insert(agent);
    };
    let (first, second) = (agent(1), agent(2));
    for agent in [&first, &second] {
        apply(store, |tx| enroll(tx, agent)).await;
    }
    let third = commit(store, |tx| enroll(tx, &agent(3))).await;
    assert_eq!(third, Err(CommitError::Conflict), "the token has two uses");
    assert_eq!(Agent::list(store).await.unwrap(), [first.clone(), second.clone()]);
    apply(store, |tx| {
        tx.agents().revoke(first.id, 60);
        tx.agents().touch(second.id, 70);
    })
    .await;
    assert_eq!(
        commit(store, |tx| tx.agents().revoke(first.id, 80)).await,
        Err(CommitError::Conflict),
        "revoked already"
    );
    let (first, second) = (Agent { revoked_ms: Some(60), ..first }, Agent { last_seen_ms: 70, ..second });
    assert_eq!(Agent::list(store).await.unwrap(), [first.clone(), second.clone()]);
    apply(store, |tx| {
        tx.agents().delete(first.id);
        tx.host_tags().set(second.host, &["a".to_owned()]);
    })
    .await;
    apply(store, |tx| tx.host_tags().set(second.host, &["b=c".to_owned()])).await;
    assert_eq!(HostTags::list(store).await.unwrap(), [(second.host, vec!["b=c".to_owned()])]);
    apply(store, |tx| {
        tx.host_tags().delete(second.host);
        tx.agents().delete(second.id);
    })
    .await;
    assert!(HostTags::list(store).await.unwrap().is_empty());
    let with_uses = |uses_left| EnrollmentToken { uses_left, ..token.clone() };
    assert_eq!(EnrollmentToken::list(store).await.unwrap(), [with_uses(0)]);
    apply(store, |tx| tx.enrollment_tokens().delete_expired(101)).await;
    assert!(EnrollmentToken::list(store).await.unwrap().is_empty());
}

async fn audit_log_is_filtered_and_purged(store: &Arc<dyn Store>) {
    let store = &**store;
    let entry = |number: i64, action: &str| AuditEntry {
        at_ms: number,
        actor: "user alice".to_owned(),
        address: "192.0.2.1".to_owned(),
        action: action.to_owned(),
        object: "user 50%_off!".to_owned(),
        after: Some("{\"role\":\"viewer\"}".to_owned()),
        ..AuditEntry::default()
    };
    apply(store, |tx| {
        tx.audit().insert(&entry(1, "user.create"));
        tx.audit().insert(&entry(2, "login.failed"));
        tx.audit().insert(&entry(3, "user.update"));
    })
    .await;
    let find = async |text: &str, before_id| {
        let filter = AuditFilter { before_id, text: Some(text.to_owned()), limit: 2 };
        list_audit_entries(store, filter).await.unwrap()
    };
    let newest = find("", None).await;
    assert_eq!(newest.iter().map(|entry| entry.at_ms).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(
        find("", Some(newest[1].id)).await[0],
        AuditEntry { id: newest[1].id - 1, ..entry(1, "user.create") }
    );
    assert_eq!(find("USER.", None).await.len(), 2);
    assert_eq!(find("50%_off!", None).await.len(), 2, "wildcards match literally");
    assert!(find("5%off", None).await.is_empty());
    apply(store, |tx| tx.audit().delete_before(2)).await;
    assert_eq!(find("", None).await.len(), 2);
    let large = AuditEntry { before: Some("x".repeat(MAX_AUDIT_VALUE_BYTES + 1)), ..entry(4, "rule.update") };
    apply(store, |tx| tx.audit().insert(&large)).await;
    assert_eq!(find("rule.update", None).await[0].before.as_deref(), Some("{\"omitted_bytes\":4097}"));
}

/// F3 (second review): addresses of logins are trusted after a restart.
async fn login_addresses_are_listed(store: &Arc<dyn Store>) {
    let store = &**store;
    for (at_ms, actor, address, action) in [
        (1_001, "user alice", "192.0.2.1", "login"),
        (1_005, "user alice", "192.0.2.2", "login"),
        (1_007, "user alice", "192.0.2.2", "token.sign"),
        (1_006, "user bob", "192.0.2.3", "login"),
        (1_008, "token x (user bob)", "192.0.2.4", "token.sign"),
        (1_009, "user bob", "192.0.2.5", "logout"),
    ] {
        let (actor, address, action) = (actor.to_owned(), address.to_owned(), action.to_owned());
        let entry = AuditEntry { at_ms, actor, address, action, ..AuditEntry::default() };
        apply(store, |tx| tx.audit().insert(&entry)).await;
    }
    let logins = list_login_addresses(store, 1_005, 10).await.unwrap();
    let logins: Vec<_> = logins.iter().map(|login| (login.address.as_str(), login.at_ms)).collect();
    assert_eq!(logins, [("192.0.2.2", 1_007), ("192.0.2.3", 1_006)]);
}

/// M7: entries of one principal are deleted without those of others.
async fn audit_entries_are_deleted_by_principal(store: &Arc<dyn Store>) {
    let store = &**store;
    let actors = [
        "user a_b",
        "user axb",
        "token one (user a_b)",
        "token two (user axb) (user a_b)",
        "enrollment token x",
        "enrollment token y",
        "anonymous",
    ];
    for (n, actor) in actors.iter().flat_map(|actor| [*actor; 3]).enumerate() {
        let entry = AuditEntry { at_ms: n as i64, actor: actor.to_owned(), ..AuditEntry::default() };
        apply(store, |tx| {
            tx.audit().insert(&AuditEntry { action: "login".to_owned(), ..entry.clone() });
            tx.audit().insert(&AuditEntry { action: "logout".to_owned(), ..entry });
        })
        .await;
    }
    let newest = newest_audit_id(store).await.unwrap();
    apply(store, |tx| {
        tx.audit().keep_newest("user a_b", "login", 4);
        tx.audit().keep_newest("enrollment token", "login", 2);
        tx.audit().keep_newest("anonymous", "login", 9);
    })
    .await;
    assert_eq!(newest_audit_id(store).await.unwrap(), newest);
    let counts = count_audit_entries(store).await.unwrap();
    let count = |actor: &str, action: &str| {
        let of = |count: &&AuditCount| count.actor == actor && count.action == action;
        counts.iter().find(of).map_or(0, |count| count.entries)
    };
    assert_eq!(actors.map(|actor| count(actor, "login")), [0, 3, 1, 3, 0, 2, 3]);
    assert_eq!(actors.map(|actor| count(actor, "logout")), [3; 7]);
}

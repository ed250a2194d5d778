//! Accounts, agents and the audit log: the same rows come back, names are taken once, and a
//! list of changes is made whole or not at all.

use perfwatch_model::HostId;
use perfwatch_store::accounts::*;
use perfwatch_store::settings::*;
use perfwatch_store::*;
use uuid::Uuid;

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

pub(crate) async fn commit(
    store: &dyn Store,
    changes: impl IntoIterator<Item = SqlStatement>,
) -> Result<(), CommitError> {
    store.commit(changes.into_iter().map(Write::Sql).collect()).await
}

pub(crate) async fn account_names_are_unique(store: &dyn Store) {
    let mut alice = account("alice");
    commit(store, [Revision::Access.init()]).await.unwrap();
    commit(store, [alice.insert()]).await.unwrap();
    assert_eq!(
        commit(store, [account("alice").insert()]).await,
        Err(CommitError::Conflict),
        "the name is taken"
    );
    let bob = Account {
        password: None,
        totp_secret: None,
        oidc_subject: Some("https://id bob".to_owned()),
        ..account("bob")
    };
    // Whole or not at all: bob does not stay where something beside him can't be done.
    let gone = Token::delete(Uuid::now_v7());
    assert_eq!(commit(store, [bob.insert(), gone]).await, Err(CommitError::Conflict));
    assert_eq!(Account::list(store).await.unwrap(), [alice.clone()]);
    commit(store, [bob.insert(), Revision::Access.bump(0)]).await.unwrap();
    alice.role = Role::Admin;
    alice.last_login_ms = Some(5);
    commit(store, [alice.update(), Revision::Access.bump(1)]).await.unwrap();
    // Decided on what was there before that.
    let late =
        commit(store, [Account { role: Role::Viewer, ..alice.clone() }.update(), Revision::Access.bump(1)])
            .await;
    assert_eq!(late, Err(CommitError::Conflict));
    commit(store, [Revision::Access.init()]).await.unwrap();
    assert_eq!(Account::list(store).await.unwrap(), [alice.clone(), bob.clone()]);
    assert_eq!(Revision::Access.get(store).await.unwrap(), 2);
    sessions_and_tokens(store, &alice, &bob).await;
    commit(store, Account::delete(alice.id)).await.unwrap();
    assert_eq!(Account::list(store).await.unwrap(), [bob]);
    assert!(Session::list(store).await.unwrap().is_empty() && Token::list(store).await.unwrap().is_empty());
    commit(store, [put_setting("key", "one"), put_setting("key", "two")]).await.unwrap();
    assert_eq!(get_setting(store, "key").await.unwrap().as_deref(), Some("two"));
    assert_eq!(get_setting(store, "none").await.unwrap(), None);
}

async fn sessions_and_tokens(store: &dyn Store, alice: &Account, bob: &Account) {
    let session = |number: u8, account: &Account, seen_ms| Session {
        hash: [number; 32],
        account: account.id,
        created_ms: 10,
        last_used_ms: seen_ms,
        address: "192.0.2.1".to_owned(),
        user_agent: "Firefox".to_owned(),
    };
    let (first, old) = (session(1, alice, 20), session(2, bob, 11));
    commit(store, [first.insert(), old.insert()]).await.unwrap();
    commit(store, [Session::touch(&first.hash, 30), Session::touch(&first.hash, 25)]).await.unwrap();
    commit(store, [Session::delete_expired(15, 5)]).await.unwrap();
    assert_eq!(Session::list(store).await.unwrap(), [Session { last_used_ms: 30, ..first }]);
    let token = Token {
        id: Uuid::now_v7(),
        hash: [7; 32],
        account: alice.id,
        name: "deploy".to_owned(),
        scope: "read".to_owned(),
        created_ms: 10,
        expires_ms: None,
        last_used_ms: None,
    };
    commit(store, [token.insert(), Token::touch(token.id, 40)]).await.unwrap();
    assert_eq!(Token::list(store).await.unwrap(), [Token { last_used_ms: Some(40), ..token }]);
}

pub(crate) async fn enrollment_uses_are_limited(store: &dyn Store) {
    let enrolment = EnrollmentToken {
        id: Uuid::now_v7(),
        hash: [1; 32],
        name: "web servers".to_owned(),
        tags: vec!["role=web".to_owned()],
        uses_left: 2,
        created_by: "user alice".to_owned(),
        created_ms: 10,
        expires_ms: 100,
    };
    commit(store, [enrolment.insert()]).await.unwrap();
    let agent = |number: u8| Agent {
        id: Uuid::now_v7(),
        hash: [number; 32],
        host: HostId::generate(),
        enrollment_token: enrolment.name.clone(),
        address: "192.0.2.7".to_owned(),
        created_ms: 20,
        last_seen_ms: 20,
        revoked_ms: None,
    };
    let (one, two) = (agent(1), agent(2));
    for agent in [&one, &two] {
        commit(store, [EnrollmentToken::consume(enrolment.id, 50), agent.insert()]).await.unwrap();
    }
    let third = commit(store, [EnrollmentToken::consume(enrolment.id, 50), agent(3).insert()]).await;
    assert_eq!(third, Err(CommitError::Conflict), "it was for two");
    assert_eq!(Agent::list(store).await.unwrap(), [one.clone(), two.clone()]);
    commit(store, [Agent::revoke(one.id, 60), Agent::touch(two.id, 70)]).await.unwrap();
    assert_eq!(commit(store, [Agent::revoke(one.id, 80)]).await, Err(CommitError::Conflict), "once");
    let (one, two) = (Agent { revoked_ms: Some(60), ..one }, Agent { last_seen_ms: 70, ..two });
    assert_eq!(Agent::list(store).await.unwrap(), [one.clone(), two.clone()]);
    commit(store, [Agent::delete(one.id), HostTags::set(two.host, &["a".to_owned()])]).await.unwrap();
    commit(store, [HostTags::set(two.host, &["b=c".to_owned()])]).await.unwrap();
    assert_eq!(HostTags::list(store).await.unwrap(), [(two.host, vec!["b=c".to_owned()])]);
    let left = |uses_left| EnrollmentToken { uses_left, ..enrolment.clone() };
    assert_eq!(EnrollmentToken::list(store).await.unwrap(), [left(0)]);
    commit(store, [EnrollmentToken::delete_expired(101)]).await.unwrap();
    assert!(EnrollmentToken::list(store).await.unwrap().is_empty());
}

pub(crate) async fn revisions_detect_changes(store: &dyn Store) {
    let entry = |number: i64, action: &str| AuditEntry {
        at_ms: number,
        actor: "user alice".to_owned(),
        address: "192.0.2.1".to_owned(),
        action: action.to_owned(),
        object: "user 50%_off!".to_owned(),
        after: Some("{\"role\":\"viewer\"}".to_owned()),
        ..AuditEntry::default()
    };
    commit(
        store,
        [
            entry(1, "user.create").insert(),
            entry(2, "login.failed").insert(),
            entry(3, "user.update").insert(),
        ],
    )
    .await
    .unwrap();
    let ask = async |text: &str, before_id| {
        let filter = AuditFilter { before_id, text: Some(text.to_owned()), limit: 2 };
        list_audit_entries(store, filter).await.unwrap()
    };
    let newest = ask("", None).await;
    assert_eq!(newest.iter().map(|entry| entry.at_ms).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(
        ask("", Some(newest[1].id)).await[0],
        AuditEntry { id: newest[1].id - 1, ..entry(1, "user.create") }
    );
    assert_eq!(ask("USER.", None).await.len(), 2);
    assert_eq!(ask("50%_off!", None).await.len(), 2, "signs stand for themselves");
    assert!(ask("5%off", None).await.is_empty());
    commit(store, AuditEntry::purge(2, 10)).await.unwrap();
    assert_eq!(ask("", None).await.len(), 2);
    commit(store, AuditEntry::purge(0, 1)).await.unwrap();
    assert_eq!(ask("", None).await.len(), 1, "the newest");
}

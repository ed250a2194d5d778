//! Accounts, agents and the audit log: the same rows come back, names are taken once, and a
//! list of changes is made whole or not at all.

use perfwatch_model::HostId;
use perfwatch_store::people::*;
use perfwatch_store::settings::*;
use perfwatch_store::*;
use uuid::Uuid;

fn account(name: &str) -> Account {
    Account {
        id: Uuid::now_v7(),
        name: name.to_owned(),
        role: Role::Operator,
        password: Some("$argon2id$…".to_owned()),
        totp: Some(vec![0, 159, 255]),
        totp_step: 3,
        recovery: vec!["ab".to_owned(), "cd".to_owned()],
        subject: None,
        host_tags: vec!["environment=production".to_owned()],
        enabled: true,
        epoch: 1,
        created_ms: 1_700_000_000_000,
        login_ms: None,
    }
}

pub(crate) async fn commit(
    store: &dyn Store,
    changes: impl IntoIterator<Item = Change>,
) -> Result<(), CommitError> {
    store.commit(changes.into_iter().map(Write::Sql).collect()).await
}

pub(crate) async fn accounts_are_kept_and_names_taken_once(store: &dyn Store) {
    let mut alice = account("alice");
    commit(store, [Counted::People.begin()]).await.unwrap();
    commit(store, [alice.add()]).await.unwrap();
    assert_eq!(
        commit(store, [account("alice").add()]).await,
        Err(CommitError::Conflict),
        "the name is taken"
    );
    let bob =
        Account { password: None, totp: None, subject: Some("https://id bob".to_owned()), ..account("bob") };
    // Whole or not at all: bob does not stay where something beside him can't be done.
    let gone = Token::remove(Uuid::now_v7());
    assert_eq!(commit(store, [bob.add(), gone]).await, Err(CommitError::Conflict));
    assert_eq!(Account::all(store).await.unwrap(), [alice.clone()]);
    commit(store, [bob.add(), Counted::People.changed(0)]).await.unwrap();
    alice.role = Role::Admin;
    alice.login_ms = Some(5);
    commit(store, [alice.save(), Counted::People.changed(1)]).await.unwrap();
    // Decided on what was there before that.
    let late =
        commit(store, [Account { role: Role::Viewer, ..alice.clone() }.save(), Counted::People.changed(1)])
            .await;
    assert_eq!(late, Err(CommitError::Conflict));
    commit(store, [Counted::People.begin()]).await.unwrap();
    assert_eq!(Account::all(store).await.unwrap(), [alice.clone(), bob.clone()]);
    assert_eq!(Counted::People.count(store).await.unwrap(), 2);
    sessions_and_tokens(store, &alice, &bob).await;
    commit(store, Account::remove(alice.id)).await.unwrap();
    assert_eq!(Account::all(store).await.unwrap(), [bob]);
    assert!(Session::all(store).await.unwrap().is_empty() && Token::all(store).await.unwrap().is_empty());
    commit(store, [put_setting("key", "one"), put_setting("key", "two")]).await.unwrap();
    assert_eq!(setting(store, "key").await.unwrap().as_deref(), Some("two"));
    assert_eq!(setting(store, "none").await.unwrap(), None);
}

async fn sessions_and_tokens(store: &dyn Store, alice: &Account, bob: &Account) {
    let session = |number: u8, account: &Account, seen_ms| Session {
        hash: [number; 32],
        account: account.id,
        created_ms: 10,
        seen_ms,
        address: "192.0.2.1".to_owned(),
        browser: "Firefox".to_owned(),
    };
    let (first, old) = (session(1, alice, 20), session(2, bob, 11));
    commit(store, [first.add(), old.add()]).await.unwrap();
    commit(store, [Session::seen(&first.hash, 30), Session::seen(&first.hash, 25)]).await.unwrap();
    commit(store, [Session::end_old(15, 5)]).await.unwrap();
    assert_eq!(Session::all(store).await.unwrap(), [Session { seen_ms: 30, ..first }]);
    let token = Token {
        id: Uuid::now_v7(),
        hash: [7; 32],
        account: alice.id,
        name: "deploy".to_owned(),
        scope: "read".to_owned(),
        created_ms: 10,
        expires_ms: None,
        used_ms: None,
    };
    commit(store, [token.add(), Token::used(token.id, 40)]).await.unwrap();
    assert_eq!(Token::all(store).await.unwrap(), [Token { used_ms: Some(40), ..token }]);
}

pub(crate) async fn agents_come_in_as_often_as_they_may(store: &dyn Store) {
    let enrolment = Enrolment {
        id: Uuid::now_v7(),
        hash: [1; 32],
        name: "web servers".to_owned(),
        tags: vec!["role=web".to_owned()],
        uses_left: 2,
        created_by: "user alice".to_owned(),
        created_ms: 10,
        expires_ms: 100,
    };
    commit(store, [enrolment.add()]).await.unwrap();
    let agent = |number: u8| Agent {
        id: Uuid::now_v7(),
        hash: [number; 32],
        host: HostId::generate(),
        enrolment: enrolment.name.clone(),
        address: "192.0.2.7".to_owned(),
        created_ms: 20,
        seen_ms: 20,
        revoked_ms: None,
    };
    let (one, two) = (agent(1), agent(2));
    for agent in [&one, &two] {
        commit(store, [Enrolment::use_one(enrolment.id, 50), agent.add()]).await.unwrap();
    }
    let third = commit(store, [Enrolment::use_one(enrolment.id, 50), agent(3).add()]).await;
    assert_eq!(third, Err(CommitError::Conflict), "it was for two");
    assert_eq!(Agent::all(store).await.unwrap(), [one.clone(), two.clone()]);
    commit(store, [Agent::revoke(one.id, 60), Agent::seen(two.id, 70)]).await.unwrap();
    assert_eq!(commit(store, [Agent::revoke(one.id, 80)]).await, Err(CommitError::Conflict), "once");
    let (one, two) = (Agent { revoked_ms: Some(60), ..one }, Agent { seen_ms: 70, ..two });
    assert_eq!(Agent::all(store).await.unwrap(), [one.clone(), two.clone()]);
    commit(store, [Agent::remove(one.id), HostTags::put(two.host, &["a".to_owned()])]).await.unwrap();
    commit(store, [HostTags::put(two.host, &["b=c".to_owned()])]).await.unwrap();
    assert_eq!(HostTags::all(store).await.unwrap(), [(two.host, vec!["b=c".to_owned()])]);
    let left = |uses_left| Enrolment { uses_left, ..enrolment.clone() };
    assert_eq!(Enrolment::all(store).await.unwrap(), [left(0)]);
    commit(store, [Enrolment::remove_old(101)]).await.unwrap();
    assert!(Enrolment::all(store).await.unwrap().is_empty());
}

pub(crate) async fn changes_are_found_again(store: &dyn Store) {
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
        [entry(1, "user.create").add(), entry(2, "login.failed").add(), entry(3, "user.update").add()],
    )
    .await
    .unwrap();
    let ask = async |text: &str, before_id| {
        let filter = AuditFilter { before_id, text: Some(text.to_owned()), limit: 2 };
        audit(store, filter).await.unwrap()
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
    commit(store, AuditEntry::remove_old(2, 10)).await.unwrap();
    assert_eq!(ask("", None).await.len(), 2);
    commit(store, AuditEntry::remove_old(0, 1)).await.unwrap();
    assert_eq!(ask("", None).await.len(), 1, "the newest");
}

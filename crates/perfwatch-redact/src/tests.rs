//! Tests of masking. `|` stands for the byte 0 between two arguments, and `¦` for the operator `|` of a shell.

use super::*;
use proptest::prelude::*;

/// Command lines in which `{}` is a secret. The remaining text is not checked.
const FORMS: &str = include_str!("secret_lines.txt");

/// Command lines that stay as they are.
const HARMLESS: &str = include_str!("harmless_lines.txt");

/// Lines of a table without its comments.
fn rows(table: &'static str) -> impl Iterator<Item = &'static str> {
    table.lines().filter(|line| !line.starts_with('#'))
}

#[test]
fn secrets_of_each_form_are_masked() {
    for form in rows(FORMS) {
        let masked = mask_line(&form.replace("{}", "S3CRET"));
        assert!(!masked.contains("S3CRET") && masked.contains(MASK), "{form}: {masked}");
    }
}

#[test]
fn harmless_command_lines_are_unchanged() {
    for line in rows(HARMLESS) {
        assert_eq!(mask_line(line), line.trim().replace('|', " ").replace('¦', "|"));
    }
}

/// Found by fuzzing: a user of a watched host ended the collector with a command line.
#[test]
fn urls_after_wide_characters_are_masked() {
    assert_eq!(mask_line("app|a://bé://u:pw@h|"), "app a://bé://u:***@h");
    assert_eq!(mask_line("app|postgres://u:pwé1://x|"), "app postgres://u:pwé1://x");
}

#[test]
fn only_the_secret_is_masked() {
    for (line, expected) in [
        ("mysqld|--user=root|--password=hunter2|", "mysqld --user=root --password=***"),
        ("app|--token|abc|--port|80|", "app --token *** --port 80"),
        ("curl|-u|x|API_KEY=abc|", "curl -u x API_KEY=***"),
        ("psql|postgres://bob:s3cret@db/x|", "psql postgres://bob:***@db/x"),
        ("app|http://u:a@b?c=d@e", "app http://u:***@b?c=d@e"),
        ("x|Authorization: Bearer abc|y", "x Authorization: *** y"),
        (
            "sh|-c|PGPASSWORD=x psql -h db && mysql -py -e z",
            "sh -c PGPASSWORD=*** psql -h db && mysql -p*** -e z",
        ),
        ("psql|host=h password=x user=u", "psql host=h password=*** user=u"),
        ("app|{\"password\": \"a b\", \"user\": \"u\"}", "app {\"password\": \"***\", \"user\": \"u\"}"),
        ("app|Server=h;Password=x;Encrypt=true", "app Server=h;Password=***;Encrypt=true"),
        ("curl|-sku|bob:x|https://h/?token=y&z=1", "curl -sku bob:*** https://h/?token=***&z=1"),
        ("worker --password x --port 1", "worker --password *** --port 1"),
        ("smbclient|//h/s|-U|bob%x", "smbclient //h/s -U bob%***"),
        ("sqlplus|scott/x@db", "sqlplus scott/***@db"),
        ("expect|-c|expect \"password:\"; send \"x\"", "expect -c expect \"password:\"; send \"***\""),
        ("app|'password' => 'x'", "app 'password' => '***'"),
        ("app|--password|=|x|y", "app --password = *** y"),
        ("app|PASSWORD=|./run", "app PASSWORD= ./run"),
        ("app|--seed|word|--seed|42|--mnemonic|a b", "app --seed *** --seed 42 --mnemonic ***"),
        ("mongo|--eval|db.auth('a','x')", "mongo --eval db.auth('a','***')"),
        ("sh|-c|echo bob:x ¦ sudo chpasswd", "sh -c echo bob:*** | sudo chpasswd"),
        ("curl|https://api.telegram.org/bot1:x/send", "curl https://api.telegram.org/bot***/send"),
        ("mysqlsh|root:x@h:3306|a@b.c", "mysqlsh root:***@h:3306 a@b.c"),
        ("sh|-c|ipmitool user set password 2 x", "sh -c ipmitool user set password 2 ***"),
        (
            "sh|-c|expect <<E spawn x expect \"password:\" send \"y\" E",
            "sh -c expect <<E spawn x expect \"password:\" send \"***\" E",
        ),
        ("app|s.0123456789abcdefghijklmn|key-word-word", "app s.*** key-word-word"),
        ("vault|kv|put|secret/x|a=x", "vault kv put secret/x a=***"),
        ("kubectl|config|set-credentials|a", "kubectl config set-credentials a"),
        ("", ""),
        ("||", ""),
        ("line\nbreak|", "line break"),
    ] {
        assert_eq!(mask_line(line), expected);
    }
    assert_eq!(unmasked(b"a\0--password=x\0"), "a --password=x");
    assert_eq!(unmasked("ä".repeat(500).as_bytes()).chars().count(), MAX_COMMAND_CHARS + 1);
}

#[test]
fn hostile_arguments_are_masked_in_linear_time() {
    let pieces = [
        "a://",
        "?",
        "\"' ",
        "password=",
        "password= \"\\\"",
        "= ",
        "eyJ",
        "p:",
        "a b\"",
        "'\"x ",
        "a:b@",
        "to:@",
        "password%3D%26",
        "identified by ",
        "auth(",
        "auth('",
        "</token",
        "<token>",
        "passwd|",
        "echo x|",
        "(echo x;",
        "passwd <<<x ",
        "password \"",
        "send \"x ",
        "-----BEGIN ",
        "-----BEGIN PRIVATE KEY-----",
        "set password for ",
        "api.telegram.org/bot",
        "jdbc:oracle:",
        "key=",
        "pragma key=",
        "%3A",
        "a=b,",
        "password =>",
        "$$ password ",
    ];
    for piece in pieces {
        let line = format!("app\0{}@", piece.repeat(MAX_ARGUMENT_BYTES / piece.len() - 1));
        assert!(mask_secrets(line.as_bytes()).chars().count() <= MAX_COMMAND_CHARS + 1);
    }
}

fn mask_line(line: &str) -> String {
    mask_secrets(line.replace('|', "\0").replace('¦', "|").as_bytes())
}

proptest! {
    #[test]
    fn no_secret_of_a_known_form_is_shown(form in proptest::sample::select(rows(FORMS).collect::<Vec<_>>()), secret in "[A-Za-z0-9_]{6,20}") {
        prop_assume!(!form.contains(&secret));
        let masked = mask_line(&form.replace("{}", &secret));
        prop_assert!(!masked.contains(&secret), "{form}: {masked}");
    }

    #[test]
    fn any_bytes_are_masked_without_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        text in "[-a-z:=@/?&;,{}\"' \\x00ä]{0,80}",
    ) {
        mask_secrets(&bytes);
        mask_secrets(text.as_bytes());
    }
}

//! Tests of masking. `|` stands for the byte 0 between two arguments, and `¦` for the operator `|` of a shell.

#[path = "command_line/test_lines.rs"]
mod test_lines;

use super::*;
use proptest::prelude::*;
use test_lines::{MORE_FORMS, MORE_HARMLESS};

/// Command lines in which `{}` is a secret. The remaining text is not checked.
const FORMS: &[&str] = &[
    "mysql|-uroot|-p{}",
    "mysqldump|--password={}|db",
    "mariadb-dump|-Bp{}",
    "sudo|-u|root|mysql|-p{}",
    "docker|exec|-i|db|mysql|-uroot|-p{}",
    "sh|-c|mysql -p{} db",
    "sh|-c|exec timeout 5 mysql '-p{}' db",
    "bash|-lc|cd /x && sshpass -p {} ssh h",
    "sh|-c|sh -c \"mysql -p{} db\"",
    "ssh|host|mysql -uroot -p{}",
    "sshpass|-p|{}|ssh|h",
    "sshpass|-p{}|ssh|h",
    "redis-cli|-a|{}",
    "valkey-cli|-h|redis|--pass|{}",
    "redis-server|--requirepass|{}",
    "ldapsearch|-x|-D|cn=x|-w|{}",
    "ldapsearch|-xw|{}",
    "ldapmodify|-w{}",
    "ldappasswd|-s|{}|-a|{}",
    "mosquitto_pub|-u|x|-P|{}",
    "mongo|-u|a|-p|{}",
    "mongosh|-p{}",
    "sqlcmd|-U|sa|-P|{}",
    "ipmitool|-U|a|-P|{}|power",
    "smbclient|//h/s|-U|bob%{}",
    "net|ads|join|-U|bob%{}",
    "snmpwalk|-v2c|-c|{}|h",
    "snmpget|-A|{}|-X|{}",
    "zip|-rP|{}|a.zip|b",
    "unzip|-P|{}|a.zip",
    "7z|a|-p{}|x.7z",
    "rar|a|-hp{}|x.rar",
    "docker|login|-u|bob|-p|{}",
    "cqlsh|-u|a|-p|{}",
    "xfreerdp|/u:bob|/p:{}|/v:h",
    "openssl|rsa|-passin|pass:{}",
    "openssl|enc|-aes-256-cbc|-k|{}",
    "openssl|enc|-pass|pass:{}",
    "htpasswd|-b|file|bob|{}",
    "htpasswd|-nb|bob|{}",
    "htpasswd|-cbB|file|bob|{}",
    "keytool|-list|-storepass|{}",
    "keytool|-storepasswd|-new|{}",
    "curl|-u|bob:{}|https://h/",
    "curl|-sku|bob:{}|https://h/",
    "curl|--user|bob:{}",
    "curl|--proxy-user=bob:{}",
    "curl|-x|bob:{}@p:3128|h",
    "curl|--oauth2-bearer|{}",
    "curl|-E|/a.pem:{}",
    "curl|-H|Authorization: Bearer {}|https://h/",
    "curl|-H|Authorization: Basic {}",
    "curl|-H|X-Api-Key: {}",
    "curl|-b|sid={}; b={}",
    "curl|--header=Authorization: Token token={}",
    "curl -H 'Authorization: Bearer {}' https://h/",
    "wget|--http-passwd={}",
    "wget|--password|{}",
    "http|-a|bob:{}|h",
    "http|-A|bearer|-a|{}|h",
    "lftp|-u|bob,{}|h",
    "rabbitmqctl|add_user|bob|{}",
    "rabbitmqctl|change_password|bob|{}",
    "mount.cifs|//h/s|/m|-o|username=a,password={},uid=1",
    "mount|-t|cifs|-o|user=a,pass={}",
    "java|-Djavax.net.ssl.keyStorePassword={}|-jar|x",
    "java|-Xmx1g -Dapp.password={} -Dx=y",
    "sqlplus|-S|scott/{}@db",
    "worker --password {} --port 1",
    "worker --password={} --port 1",
    "worker|--password|{} {}",
    "worker|--password={} {}",
    "app|-password|{}",
    "app|--client-secret|{}",
    "app|--apiKey={}",
    "env|PGPASSWORD={}|psql",
    "env|MYSQL_PWD={}|x",
    "AWS_SECRET_ACCESS_KEY={}",
    "curl|-d|user=a&password={}&x=1",
    "env|https_proxy=http://u:{}@p:1|x",
    "app|--dsn=postgres://u:{}@h/db",
    "app|--dsn=u:{}@tcp(h:3306)/db",
    "app|--a=http://h/,http://u:{}@i/",
    "app|redis://:{}@h:6379/0",
    "app|postgres://u:{}/{}@{}@h/db",
    "app|postgres://u:a@{}?x@h/db?sslmode=require",
    "app|https://h/p?a=1&token={}&b=2",
    "app|https://h/p?X-Amz-Signature={}",
    "app|https://h/?sv=1&sig={}",
    "psql|host=h password={} user=u",
    "psql|host=h user=u password='{} {}'",
    "app|{\"user\":\"u\",\"password\":\"{}\"}",
    "app|{\"password\": \"{} {}\", \"user\": \"u\"}",
    "app|{\\\"password\\\":\\\"{}\\\"}",
    "app|Server=h;User Id=sa;Password={};Encrypt=true",
    "app|Server=h; Uid=sa; Pwd={}; Encrypt=true",
    "app|AccountName=a;AccountKey={}",
    "app|password: {}",
    "curl|-H|Authorization:|{}",
    "nmcli|dev|wifi|connect|x|password|{}",
    "aws|configure|set|aws_secret_access_key|{}",
    "wpa_passphrase|ssid|{}",
    "kubectl|create|secret|generic|x|--from-literal=a={}",
    "plink|-pw|{}|h",
    "erl|-setcookie|{}",
    "env|https_proxy=u:{}@p:1|x",
    "app|--proxy|u:{}@p:1",
    "app|smtp://bob@x.org:{}@h:25",
    "app|-c|password = {}",
    "app|{\"password\":\"a\\\"{}\"}",
    "openssl|passwd|-6|{}",
    "ssh-keygen|-t|ed25519|-N|{}",
    "cargo|login|{}",
    "vault|login|{}",
    "pppd|user|x|password|{}",
    "fence_ipmilan|-a|h|-p|{}",
    "curl|-H|Cookie: a={}; b={}",
    "git|-c|http.extraHeader=Authorization: Basic {}|fetch",
    "helm|install|x|--set|auth.rootPassword={},a=b",
    "sh|-c|mysql --password='{} {}' -e 'select 1'",
    "mongodump|--uri=mongodb+srv://u:{}@h/db",
    "docker|run|-e|POSTGRES_PASSWORD={}|postgres",
    "worker PASSWORD={} run",
    "worker: --token {}",
    "app|x-ghp_{}",
    "app|https://h/install/pwe_{}",
    "perfwatch|agent|--token|pwe_{}",
    "app|xoxb-{}",
    "app|eyJ{}{}.eyJ{}.{}",
];

/// Command lines that stay as they are.
const HARMLESS: &[&str] = &[
    "sshd|-p|22",
    "docker|run|-p|80:80|nginx",
    "docker|run|-d|--name|mongo|-p|27017:27017|mongo:7",
    "docker|run|-u|1000:1000|--user|root:root|x",
    "python|-u|app.py",
    "sudo|-u|postgres|psql",
    "ps|-a",
    "grep|-w|foo",
    "tar|-p",
    "rsync|-a|a|b",
    "rsync|-u|host:/a|/b",
    "date|-u|+%H:%M",
    "mysql|-p|-P|3306|db",
    "mysqld|--port=3306|--basedir=/usr",
    "ldapsearch|-x|-b|dc=x",
    "curl|-s|-u|x|https://h:8080/a@b:c",
    "curl|-b|jar.txt|-o|x",
    "a|--no-password|--force",
    "a|--password-file|/etc/x|--token-ttl|30",
    "vllm|--max-tokens|4096|--tokenizer|x|--author|y",
    "git|log|--author=x|--authority|z",
    "Xorg|:0|-auth|/run/x/:0|vt7",
    "psql|postgres://db/x:y@z",
    "npm|install|https://h:443/@scope/x",
    "ssh|git@host|-p|22",
    "docker|run|registry/token-service:1|x",
    "env|PWD=/root|OLDPWD=/|SSH_AUTH_SOCK=/run/x|XDG_SESSION_ID=|x",
    "app|--use-auth=true|--compass|x|--passive|y",
    "postgres: walwriter ",
    "sshd: root@pts/0",
    "nginx: master process /usr/sbin/nginx -g daemon off;",
    "app|ssh://git@h:22/~a@b|--proxy|http://p:3128",
    "date|-u|+%H:%M:%S",
    "systemd-journald|--user=a",
    "kubelet|--kubeconfig=/etc/k.conf|--node-ip=10.0.0.1",
    "chrome|--type=renderer|--proxy-server=h:1",
    "postgres|-c|password_encryption=scram-sha-256",
    "snmpd|-A|/x|-c|/y",
    "it's|a \"quote",
];

#[test]
fn secrets_of_each_form_are_masked() {
    for form in FORMS.iter().chain(MORE_FORMS) {
        let masked = mask_line(&form.replace("{}", "S3CRET"));
        assert!(!masked.contains("S3CRET") && masked.contains(MASK), "{form}: {masked}");
    }
}

#[test]
fn harmless_command_lines_are_unchanged() {
    for line in HARMLESS.iter().chain(MORE_HARMLESS) {
        assert_eq!(mask_line(line), line.trim().replace('|', " ").replace('¦', "|"));
    }
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
    fn no_secret_of_a_known_form_is_shown(form in 0..FORMS.len() + MORE_FORMS.len(), secret in "[A-Za-z0-9_]{6,20}") {
        let form = FORMS.iter().chain(MORE_FORMS).nth(form).copied().unwrap_or_default();
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

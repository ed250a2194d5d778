//! Programs whose options or arguments are secrets without a name that says so.

/// Part of a value that is masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SecretForm {
    /// The whole value.
    Whole,
    /// The text after the first occurrence of this character; nothing without it.
    After(char),
    /// The text after the first occurrence of this character; the whole value without it.
    AfterOrWhole(char),
    /// The password of `user:password@host`.
    BeforeHost,
    /// The text after the colon of `user:password`, unless both are numbers (`docker run -u 1000:1000`).
    User,
    /// The whole value if it contains `=`; otherwise it is the name of a file.
    Assignment,
    /// The whole value, unless it starts with this character.
    Unless(char),
    /// The whole value, unless it is a number or an absolute path.
    Phrase,
    /// The path of a URL.
    Path,
    /// Nothing: overrides the rules for any program.
    Nothing,
}

/// Position of the value of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValuePosition {
    /// The next argument.
    Separate,
    /// The same argument; without a value the program prompts.
    Attached,
    /// The same argument if it has more characters, otherwise the next argument.
    Either,
}

/// Option of a program. The value of a long option is attached with `=`.
#[derive(Debug)]
pub(super) struct SecretOption {
    /// Option with its dashes.
    pub(super) name: &'static str,
    /// Position of the value.
    pub(super) position: ValuePosition,
    /// Masked part of the value.
    pub(super) form: SecretForm,
}

/// Argument without an option that is a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SecretArgument {
    /// Arguments after this number of arguments.
    After(usize),
    /// Arguments after one of these subcommands and this number of further arguments. A subcommand can have
    /// two words. Capital letters are ignored.
    Subcommand(&'static [&'static str], usize),
    /// The values of `name=value` after one of these subcommands and this number of further arguments.
    Values(&'static [&'static str], usize),
    /// The passwords of `user:password` after one of these subcommands and this number of further arguments.
    Users(&'static [&'static str], usize),
    /// Arguments after a short option with this letter and a number of arguments; one less if an option
    /// contains `n` (`htpasswd -nb USER PASSWORD` has no file).
    Flag(char, usize),
    /// Each argument of the form `user/password@database`.
    Login,
    /// The argument after each secret name (`nmcli … password VALUE`), after this subcommand if not empty.
    Named(&'static str),
    /// The argument after the name of a share (`//host/share`).
    Share,
    /// The value of `p` in `h=HOST,p=PASSWORD`.
    DataSource,
}

/// Programs with the same options.
#[derive(Debug)]
pub(super) struct Program {
    /// Names of the executables; a trailing `*` stands for any end.
    names: &'static [&'static str],
    /// Subcommands of which one must come first, separated by spaces, or an empty text.
    pub(super) subcommand: &'static str,
    /// Letters of options without a value, which can precede another option in a word (`-xw VALUE`).
    pub(super) flags: &'static str,
    /// Options with a secret.
    pub(super) options: &'static [SecretOption],
    /// Secrets without an option; the first match counts.
    pub(super) arguments: &'static [SecretArgument],
}

use SecretArgument::{DataSource, Flag, Login, Named, Share, Subcommand, Users, Values};
use SecretForm::{After, AfterOrWhole, Assignment, BeforeHost, Nothing, Whole};
use ValuePosition::{Attached, Either, Separate};

const fn option(name: &'static str, position: ValuePosition, form: SecretForm) -> SecretOption {
    SecretOption { name, position, form }
}

const fn program(
    names: &'static [&'static str],
    flags: &'static str,
    options: &'static [SecretOption],
) -> Program {
    Program { names, subcommand: "", flags, options, arguments: &[] }
}

const fn with_arguments(names: &'static [&'static str], arguments: &'static [SecretArgument]) -> Program {
    Program { names, subcommand: "", flags: "", options: &[], arguments }
}

const fn with_both(
    names: &'static [&'static str],
    flags: &'static str,
    options: &'static [SecretOption],
    arguments: &'static [SecretArgument],
) -> Program {
    Program { names, subcommand: "", flags, options, arguments }
}

/// Known programs; the first match counts. Sources: the manual page of each program.
#[rustfmt::skip]
const PROGRAMS: &[Program] = &[
    program(&["mycli", "mydumper", "myloader", "mongo", "mongosh", "mongodump", "mongorestore",
        "mongoexport", "mongoimport", "mongostat", "mongotop", "mongofiles", "cqlsh", "rdesktop", "ncftp*",
        "ipmi-*", "ipmipower", "ipmiconsole", "evil-winrm", "hydra", "medusa", "crackmapexec", "netexec",
        "nxc", "veracrypt", "truecrypt", "steghide", "fence_*", "useradd", "usermod", "megacopy", "megadl",
        "megaget", "megals", "megaput", "twine", "hdbsql", "beeline", "rabbitmqadmin", "regctl", "racadm",
        "check_mysql*", "check_pgsql", "check_vmware*", "check_esx*", "check_wmi*", "check_radius",
        "check_mongo*", "check_mssql*", "check_oracle*", "check_dbi", "cypher-shell", "couchbase-cli", "cbq",
        "cbbackup", "cbrestore", "cbbackupmgr", "cbimport", "cbexport", "jmxterm*", "openfortivpn", "fs_cli",
        "xmrig*", "idracadm*", "esxcli", "altool", "security", "yt-dlp*", "youtube-dl*", "cntlm", "certipy*", "bloodhound*"],
        "", &[option("-p", Either, Whole)]),
    with_both(&["mysqladmin", "mariadb-admin"], "ABCEGHLNQRTUVbfginoqrstvwX", &[option("-p", Attached, Whole)],
        &[Subcommand(&["password"], 0)]),
    program(&["mysql*", "mariadb*", "xtrabackup", "innobackupex"], "ABCEGHLNQRTUVbfginoqrstvwX",
        &[option("-p", Attached, Whole)]),
    program(&["sshpass"], "v", &[option("-p", Either, Whole)]),
    with_both(&["redis-cli*", "valkey-cli*", "keydb-cli*", "redis-benchmark"], "", &[option("-a", Either, Whole)],
        &[Subcommand(&["auth"], 0), Named("")]),
    with_both(&["pt-*"], "", &[option("-p", Either, Whole)], &[DataSource]),
    with_both(&["doveadm"], "", &[option("-p", Either, Whole)], &[Subcommand(&["auth test", "auth login"], 1)]),
    program(&["check_ldap*"], "", &[option("-P", Either, Whole)]),
    program(&["check_nt", "check_nscp*"], "", &[option("-s", Either, Whole)]),
    program(&["ipa-client-install"], "", &[option("-w", Either, Whole)]),
    program(&["ipa-*"], "", &[option("-w", Either, Whole), option("-p", Either, Whole),
        option("-a", Either, Whole)]),
    program(&["influx"], "", &[option("-t", Either, Whole), option("-p", Either, Whole)]),
    program(&["consul", "serf", "nomad"], "", &[option("-encrypt", Either, Whole),
        option("-join-wan-key", Either, Whole)]),
    program(&["ss-server", "ss-local", "ss-redir", "ss-tunnel", "ss-manager", "ssserver", "sslocal"], "uv",
        &[option("-k", Either, Whole)]),
    program(&["ttyd", "gotty"], "", &[option("-c", Either, After(':')),
        option("--credential", Either, After(':'))]),
    program(&["transmission-remote"], "", &[option("-n", Either, After(':')),
        option("--auth", Either, After(':'))]),
    program(&["transmission-daemon"], "", &[option("-v", Either, Whole)]),
    program(&["openconnect"], "", &[option("-C", Either, Whole)]),
    program(&["proxytunnel"], "", &[option("-P", Either, After(':')), option("-R", Either, After(':'))]),
    program(&["frpc", "frps"], "", &[option("-t", Either, Whole)]),
    program(&["sipp"], "", &[option("-ap", Separate, Whole)]),
    program(&["kcptun*", "client_linux_*", "server_linux_*"], "", &[option("-key", Either, Whole),
        option("--key", Either, Whole)]),
    program(&["hysteria"], "", &[option("-obfs", Either, Whole)]),
    program(&["ffmpeg", "ffplay", "ffprobe"], "", &[option("-decryption_key", Separate, Whole),
        option("-encryption_key", Separate, Whole)]),
    program(&["mount.cifs", "mount.smb3", "smbmount"], "", &[option("-o", Either, After('%'))]),
    program(&["signtool"], "", &[option("/p", Separate, Whole)]),
    with_both(&["smbpasswd"], "", &[option("-w", Either, Whole)], &[SecretArgument::After(1)]),
    with_both(&["isql"], "vb", &[option("-P", Either, Whole)], &[SecretArgument::After(2)]),
    with_both(&["samba-tool"], "", &[option("-U", Either, After('%')), option("--user", Either, After('%'))],
        &[Subcommand(&["user create", "user add"], 1)]),
    program(&["ldappasswd"], "WxZnvyASIOQU", &[option("-w", Either, Whole), option("-s", Either, Whole),
        option("-a", Either, Whole)]),
    program(&["ldap*"], "xZLvnWcrtuACFMNQIOST", &[option("-w", Either, Whole)]),
    program(&["kadmin*"], "mlq", &[option("-w", Either, Whole)]),
    program(&["mosquitto_pub", "mosquitto_sub", "mosquitto_rr", "mosquitto_ctrl", "p4", "ipmiutil"], "", &[option("-P", Either, Whole)]),
    program(&["sqlcmd", "bcp", "osql", "tsql", "sqsh", "mssql-cli"], "", &[option("-P", Either,
        Whole)]),
    with_both(&["ipmitool"], "vcah", &[option("-P", Either, Whole), option("-k", Either, Whole),
        option("-y", Either, Whole)], &[Subcommand(&["set password"], 1)]),
    with_both(&["smbclient"], "NkgqE", &[option("-U", Either, After('%')),
        option("--user", Either, After('%'))], &[Share]),
    program(&["rpcclient", "net", "smbget", "smbtree", "smbcacls", "smbcquotas", "nmblookup",
        "winexe"], "Nkgq", &[option("-U", Either, After('%')), option("--user", Either,
        After('%'))]),
    program(&["snmpd", "snmptrapd"], "", &[]),
    program(&["snmp*"], "", &[option("-A", Either, Whole), option("-X", Either, Whole),
        option("-c", Either, Whole), option("-3m", Separate, Whole), option("-3M", Separate, Whole)]),
    program(&["unzip", "zip", "zipcloak", "funzip"], "rqjovmnlXe9", &[option("-P", Either, Whole)]),
    program(&["7z", "7za", "7zr", "7zz", "rar", "unrar"], "", &[option("-p", Attached, Whole),
        option("-hp", Attached, Whole)]),
    Program { names: &["docker", "podman", "nerdctl", "buildah", "skopeo", "helm", "oras", "crane", "oc",
        "az", "docker-compose"], subcommand: "login secret", flags: "", options: &[option("-p", Either, Whole),
        option("-u", Either, Nothing), option("--user", Either, Nothing), option("--value", Either, Whole)],
        arguments: &[] },
    program(&["xfreerdp*", "wlfreerdp*", "sdl-freerdp*"], "", &[option("/p:", Attached, Whole),
        option("/gp:", Attached, Whole), option("-p", Separate, Whole)]),
    with_both(&["openssl"], "", &[option("-k", Separate, Whole), option("-K", Separate, Whole),
        option("-hmac", Separate, Whole), option("-macopt", Separate, After(':'))],
        &[Subcommand(&["passwd"], 0)]),
    program(&["ssh-keygen"], "q", &[option("-N", Either, Whole), option("-P", Either, Whole)]),
    program(&["slappasswd"], "nuv", &[option("-s", Either, Whole)]),
    program(&["vsql", "dsconf", "dsctl", "dsidm"], "", &[option("-w", Either, Whole)]),
    program(&["nsupdate", "dig", "delv"], "dDgloprv", &[option("-y", Either, Whole)]),
    program(&["pdftotext", "pdftoppm", "pdfimages", "pdfinfo", "pdftocairo", "pdftohtml"], "",
        &[option("-upw", Separate, Whole), option("-opw", Separate, Whole)]),
    program(&["check_http*", "check_curl"], "", &[option("-a", Either, After(':')),
        option("-b", Either, After(':'))]),
    program(&["check_snmp*"], "", &[option("-C", Either, Whole), option("-A", Either, Whole),
        option("-X", Either, Whole)]),
    program(&["caddy"], "", &[option("--plaintext", Either, Whole)]),
    with_both(&["dotnet", "nuget"], "", &[option("-k", Separate, Whole)], &[Subcommand(&["setapikey"], 0)]),
    Program { names: &["gh"], subcommand: "secret", flags: "", options: &[option("-b", Either, Whole),
        option("--body", Either, Whole)], arguments: &[] },
    Program { names: &["poetry"], subcommand: "publish", flags: "", options: &[option("-p", Either, Whole)],
        arguments: &[] },
    Program { names: &["glab"], subcommand: "auth", flags: "", options: &[option("-t", Either, Whole)],
        arguments: &[] },
    Program { names: &["gitlab-runner"], subcommand: "register", flags: "",
        options: &[option("-r", Either, Whole), option("-t", Either, Whole)], arguments: &[] },
    program(&["doctl"], "", &[option("-t", Either, Whole)]),
    program(&["lego"], "", &[option("--hmac", Either, Whole)]),
    program(&["icinga2"], "", &[option("--ticket", Either, Whole)]),
    program(&["keytool", "jarsigner"], "", &[option("-new", Separate, Whole)]),
    program(&["curl"], "sSkLfvgGIiNj#0123456aBhlnpqRJO:Z", &[option("-u", Either, After(':')),
        option("--user", Either, After(':')), option("-U", Either, After(':')),
        option("--proxy-user", Either, After(':')), option("-E", Either, After(':')),
        option("--cert", Either, After(':')), option("--proxy-cert", Either, After(':')),
        option("-x", Either, BeforeHost), option("--proxy", Either, BeforeHost),
        option("--preproxy", Either, BeforeHost), option("-b", Either, Assignment),
        option("--cookie", Either, Assignment)]),
    program(&["http", "https", "httpie", "xh", "xhs"], "", &[option("-a", Either, AfterOrWhole(':')),
        option("--auth", Either, AfterOrWhole(':'))]),
    program(&["lftp"], "", &[option("-u", Either, After(','))]),
    program(&["kubectl"], "", &[option("--from-literal", Either, After('='))]),
    program(&["swaks"], "", &[option("-ap", Separate, Whole)]),
    program(&["sendemail", "sendEmail"], "", &[option("-xp", Separate, Whole)]),
    program(&["vmrun"], "", &[option("-gp", Separate, Whole), option("-vp", Separate, Whole)]),
    with_arguments(&["htpasswd", "mosquitto_passwd"], &[Flag('b', 2)]),
    with_arguments(&["rabbitmqctl"], &[Subcommand(&["add_user", "change_password", "authenticate_user"], 1)]),
    with_arguments(&["wpa_passphrase"], &[SecretArgument::After(1)]),
    with_arguments(&["mkpasswd"], &[SecretArgument::After(0)]),
    with_arguments(&["rclone"], &[Subcommand(&["obscure"], 0), Named("config")]),
    with_arguments(&["cargo"], &[Subcommand(&["login"], 0)]),
    with_arguments(&["etcdctl"], &[Users(&["user add"], 0)]),
    with_arguments(&["zookeeper-shell*", "zkCli*"], &[Users(&["digest"], 0)]),
    with_arguments(&["fly", "flyctl"], &[Values(&["set", "import"], 0)]),
    with_arguments(&["grafana*"], &[Subcommand(&["reset-admin-password"], 0)]),
    with_arguments(&["filebrowser"], &[Subcommand(&["users add"], 1)]),
    with_arguments(&["snyk"], &[Subcommand(&["auth"], 0)]),
    with_arguments(&["virsh"], &[Subcommand(&["secret-set-value"], 1)]),
    with_arguments(&["drush"], &[Subcommand(&["user:password", "upwd"], 1)]),
    with_arguments(&["vault", "bao"], &[Subcommand(&["login", "unseal"], 0),
        Values(&["put", "patch", "write"], 1)]),
    with_arguments(&["mc", "mcli"], &[Subcommand(&["user add", "svcacct add"], 2),
        Subcommand(&["set", "add"], 3)]),
    with_arguments(&["neo4j-admin"], &[Subcommand(&["set-initial-password"], 0)]),
    with_arguments(&["radtest", "add-user.sh"], &[SecretArgument::After(1)]),
    with_arguments(&["radclient"], &[SecretArgument::After(2)]),
    with_arguments(&["ngrok"], &[Subcommand(&["authtoken", "add-authtoken"], 0)]),
    with_arguments(&["iwconfig", "iw"], &[Subcommand(&["key", "keys", "enc"], 0)]),
    with_arguments(&["bitcoin-cli", "litecoin-cli", "dogecoin-cli"], &[Subcommand(&["walletpassphrase",
        "walletpassphrasechange", "encryptwallet", "importprivkey", "sethdseed"], 0)]),
    with_arguments(&["ansible-vault"], &[Subcommand(&["encrypt_string"], 0)]),
    with_arguments(&["db2"], &[Subcommand(&["using"], 0)]),
    with_arguments(&["deluge-console"], &[Subcommand(&["connect"], 2)]),
    with_arguments(&["npm", "pnpm", "yarn"], &[Named("set")]),
    with_arguments(&["sqlplus", "sqlldr", "rman", "exp", "imp", "expdp", "impdp", "sqlcl"], &[Login]),
    Program { names: &["aws"], subcommand: "put-parameter", flags: "",
        options: &[option("--value", Either, Whole)], arguments: &[Named("")] },
    with_arguments(&["nmcli", "iwctl", "pppd", "pdftk", "teamviewer", "wpa_cli", "hostapd_cli", "lsnrctl", "asterisk"], &[Named("")]),
];

/// Finds a program by the base name of its path.
pub(super) fn find_program(word: &str) -> Option<&'static Program> {
    let name = word.rsplit('/').next().filter(|_| !word.contains("://"))?;
    let is_match = |pattern: &&str| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *pattern,
    };
    PROGRAMS.iter().find(|program| program.names.iter().any(is_match))
}

//! Tests of captures.

use super::*;
use proptest::prelude::*;

#[test]
fn reads_every_entry_kind() {
    let capture = Capture::parse(
        b"=== /proc/stat\ncpu 1\n\\=== not a header\n=== /proc/1/cmdline hex\n6100\n=== /sys/block list\nsda\nvda\n\
          === /proc/1/fd count\n7\n=== /mnt/a\\040b usage\n9 8 7 6 5\n=== /proc/1/io error\ndenied\n=== @page_size\n65536\n",
    )
    .unwrap();
    let mut out = Vec::new();
    capture.read("/proc/stat", &mut out).unwrap();
    assert_eq!(out, b"cpu 1\n=== not a header\n");
    capture.read("/proc/1/cmdline", &mut out).unwrap();
    assert_eq!(out, b"a\0");
    assert_eq!(capture.list("/sys/block").unwrap(), ["sda", "vda"]);
    assert_eq!(capture.count("/proc/1/fd").unwrap(), 7);
    assert_eq!(capture.usage(Path::new("/mnt/a b")).unwrap().available, 7);
    assert_eq!(capture.read("/proc/1/io", &mut out).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(capture.read("/nothing", &mut out).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(capture.page_size(), 65536);
    assert_eq!(Capture::parse(&capture.to_text()).unwrap(), capture);
}

#[test]
fn file_sections_cannot_be_spoofed() {
    let capture = Capture::parse(
        b"=== @files\n/proc/1/stat:1 (a\n/proc/1/stat:=== /proc/stat) S\n/proc/2/cmdline:b\0c\nnoise\nx:y\n/sys/a:1:2\n\
          === @counts\n12 /proc/1/fd\nx\n=== @links\nlrwxrwxrwx 1 root root 0 Jan  1 00:00 /sys/a/master -> ../b c\nx -> y\n=== @statfs\n? /nfs\n? /gone\n? /far away\n512 10 5 4 3 2 /far away\n! /gone\n\
          512 1 2 x\ndf Filesystem 1024-blocks Used Available Capacity Mounted on\ndf /dev/sd a 100 40 50 45% /data\n",
    )
    .unwrap();
    let read = |path: &str| {
        let mut out = Vec::new();
        capture.read(path, &mut out).map(|()| String::from_utf8(out).unwrap())
    };
    assert_eq!(read("/proc/1/stat").unwrap(), "1 (a\n=== /proc/stat) S\n");
    assert_eq!(read("/proc/2/cmdline").unwrap(), "b\0c\n");
    assert_eq!(read("/sys/a").unwrap(), "1:2\n");
    assert!(read("/proc/stat").is_err() && read("x").is_err());
    assert_eq!(capture.count("/proc/1/fd").unwrap(), 12);
    assert_eq!(capture.link("/sys/a/master").unwrap(), "../b c");
    assert!(capture.link("x").is_err());
    assert_eq!(capture.usage(Path::new("/nfs")).unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!(capture.usage(Path::new("/gone")).unwrap_err().kind(), io::ErrorKind::NotFound);
    let far = FsUsage { size: 5120, free: 2560, available: 2048, inodes: 3, inodes_free: 2 };
    assert_eq!(capture.usage(Path::new("/far away")).unwrap(), far);
    let data = FsUsage { size: 102_400, free: 61_440, available: 51_200, inodes: 0, inodes_free: 0 };
    assert_eq!(capture.usage(Path::new("/data")).unwrap(), data);
    assert_eq!(Capture::parse(&capture.to_text()).unwrap(), capture);
}

#[test]
fn parse_errors_name_the_line() {
    for (text, line) in
        [("hello\n", 1), ("=== proc/stat\n", 1), ("=== /a\nx\n=== /b odd\n", 3), ("=== /a hex\nxyz\n", 1)]
    {
        assert_eq!(Capture::parse(text.as_bytes()).unwrap_err().line, line, "{text:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_parse_or_fail_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Capture::parse(&bytes);
    }

    #[test]
    fn capture_round_trips(path in "/[a-z ]{1,9}", text in "(\\\\{0,2}={0,4} ?[a-z\\x00-\\x1f]{0,5}\n){0,6}") {
        let mut capture = Capture::default();
        capture.insert(&path, text.as_bytes());
        prop_assert_eq!(Capture::parse(&capture.to_text()).unwrap(), capture);
    }
}

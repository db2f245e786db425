//! Who is at the other end, and what it says.

use super::super::channel::{Channel, Kind};
use super::*;
use crate::checkpoint::pace::{Pace, block};
use crate::io::monotonic_ns;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

const SOCKET: &str = "RINGBACK_TEST_UPGRADE_SOCKET";

/// This test once more, as another user.
#[test]
fn a_process_of_another_user_gets_nothing() {
    if let Some(socket) = std::env::var_os(SOCKET) {
        let mut stream = UnixStream::connect(socket).unwrap();
        // What is refused is not even told why.
        assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0);
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: a process of another user (this one is not root's)");
    }
    let directory = std::env::temp_dir().join(format!("ringback-upgrade-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let (socket, program) = (directory.join("socket"), directory.join("test"));
    let listener = UnixListener::bind(&socket).unwrap();
    std::fs::copy("/proc/self/exe", &program).unwrap();
    for path in [&directory, &socket, &program] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let name = "upgrade::tests::peer::a_process_of_another_user_gets_nothing";
    let mut other = Command::new(&program)
        .args(["--exact", name])
        .env(SOCKET, &socket)
        .current_dir("/")
        .uid(65_534)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (stream, _) = listener.accept().unwrap();
    let bed = Bed::new(builder(Backend::Epoll, 1), 1, 1);
    let refused = bed.runtime.upgrade_to(stream, &[], PATIENCE).unwrap_err();
    assert!(matches!(refused, UpgradeError::User { found: 65_534, expected: 0 }), "{refused}");
    assert!(other.wait().unwrap().success());
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(bed.runtime.try_run(bed.clients[0].keys[0]), TryRun::Submitted);
}

#[test]
fn another_version_of_the_exchange_is_refused_by_name() {
    let bed = Bed::new(builder(Backend::Epoll, 1), 1, 1);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(theirs, Pace::default(), monotonic_ns() + PATIENCE.as_nanos() as u64).unwrap();
    channel.send(Kind::Hello, &99u64.to_le_bytes(), &[]).unwrap();
    let error = bed.runtime.upgrade_to(ours, &[], PATIENCE).unwrap_err();
    assert_eq!(error.to_string(), "the other process speaks version 99 of the exchange, and this one version 1");
    let Err(UpgradeError::Refused { why }) = block(channel.expect(Kind::State)) else { panic!("it is told") };
    assert_eq!(why, error.to_string());
}

#[test]
fn nonsense_is_refused_and_costs_nothing() {
    let bed = Bed::new(builder(Backend::Epoll, 1), 1, 1);
    let nonsense: [&[u8]; 4] = [
        b"",
        b"rbup",
        b"GET / HTTP/1.1\r\nHost: upgrade\r\n\r\n",
        // A hello that is four gigabytes long.
        b"rbup\x01\0\0\0\0\0\0\0\xff\xff\xff\xff",
    ];
    for bytes in nonsense {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(bytes).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let error = bed.runtime.upgrade_to(ours, &[], PATIENCE).unwrap_err();
        assert!(matches!(error, UpgradeError::Gone | UpgradeError::Malformed(_)), "{error}");
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(bytes).unwrap();
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        let error = Upgrade::receive(theirs, PATIENCE).unwrap_err();
        assert!(matches!(error, UpgradeError::Gone | UpgradeError::Malformed(_)), "{error}");
    }
    // Out of turn.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(theirs, Pace::default(), monotonic_ns() + PATIENCE.as_nanos() as u64).unwrap();
    channel.send(Kind::Ready, &[], &[]).unwrap();
    assert!(matches!(bed.runtime.upgrade_to(ours, &[], PATIENCE), Err(UpgradeError::Malformed(_))));
    assert_eq!(bed.runtime.try_run(bed.clients[0].keys[0]), TryRun::Submitted);
}

/// A byte now and then is no answer.
#[test]
fn who_sends_byte_by_byte_is_not_waited_for_longer() {
    let bed = Bed::new(builder(Backend::Epoll, 1), 1, 1);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let slow = std::thread::spawn(move || {
        let hello = b"rbup\x01\0\0\0\0\0\0\0\x08\0\0\0\x01\0\0\0\0\0\0\0";
        for byte in hello {
            if theirs.write_all(&[*byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let begun = Instant::now();
    let error = bed.runtime.upgrade_to(ours, &[], Duration::from_millis(500)).unwrap_err();
    assert!(matches!(error, UpgradeError::TimedOut), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    slow.join().unwrap();
}

/// The connections go to one runtime. Neither process sets itself a limit that could overflow.
#[test]
fn a_second_runtime_of_one_upgrade_is_refused() {
    let bed = Bed::new(builder(Backend::Epoll, 1), 1, 1);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || {
        let upgrade = Upgrade::receive(theirs, Duration::MAX).unwrap();
        let build = || {
            let builder = builder(Backend::Epoll, 1).upgrade_from(&upgrade);
            builder.build(Arc::new(Counting::default()), Arc::new(Deaf)).map(drop).map_err(|error| error.to_string())
        };
        [build(), build()]
    });
    let given = bed.runtime.upgrade_to(ours, &[], Duration::MAX);
    assert!(matches!(given, Err(UpgradeError::Gone)), "{given:?}");
    let refused = "a runtime was built of this upgrade before".to_owned();
    assert_eq!(thread.join().unwrap(), [Ok(()), Err(refused)]);
    assert_eq!(bed.runtime.try_run(bed.clients[0].keys[0]), TryRun::Submitted);
}

#[test]
fn confirming_what_was_not_built_is_an_error() {
    let bed = Bed::new(builder(Backend::Epoll, 1), 1, 1);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || Upgrade::receive(theirs, PATIENCE)?.confirm());
    assert!(bed.runtime.upgrade_to(ours, &[], PATIENCE).is_err());
    assert!(matches!(thread.join().unwrap(), Err(UpgradeError::NotBuilt)));
}

//! The way from the host into the lab.

use crate::*;

pub(crate) fn the_relay_copies_bytes_and_follows_the_address() {
    let dir = Dir::new("relay");
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let outside = listener.local_addr().unwrap();
    let mut config = three(&dir.0);
    config.relays = vec![Relay { listener, to: address(100, 7) }];
    // With `arp_notify` the new holder tells its neighbours, as the manager of a virtual address does.
    let hold = |n: u8| {
        format!(
            "echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_notify; ip addr add 10.77.0.100/32 dev eth0;
             ip link set eth0 address 02:1c:0a:4d:00:{n:02x}"
        )
    };
    let ask = move || {
        let mut stream = TcpStream::connect(outside).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(b"x").unwrap();
        let mut line = String::new();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        reader.read_line(&mut line).unwrap();
        (line.trim().to_owned(), stream, reader)
    };
    with_lab(config, 2, |lab| async move {
        start_echo(&lab, "m1", 7).await;
        start_echo(&lab, "m2", 7).await;
        // A client that comes before anybody holds the address waits for it.
        let early = tokio::task::spawn_blocking(ask);
        tokio::time::sleep(Duration::from_millis(300)).await;
        output(&lab, "m1", &hold(1)).await;
        let (name, stream, mut reader) = early.await.unwrap();
        assert_eq!(name, "m1");

        // All bytes in both directions, and the end of one direction is not the end of the other.
        let sent: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[(n % 3) as usize]).collect();
        let copy = sent.clone();
        let mut writer = stream.try_clone().unwrap();
        let writing = std::thread::spawn(move || {
            writer.write_all(&copy).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        tokio::task::block_in_place(|| reader.read_to_end(&mut back)).unwrap();
        writing.join().unwrap();
        assert!(back[0] == b'x' && back[1..] == sent, "{} bytes back of {}", back.len(), sent.len());
        drop((stream.shutdown(Shutdown::Both), reader));

        // The holder loses its power with a connection open; the address moves; the client is told and comes again.
        let (name, mut open, mut reader) = tokio::task::spawn_blocking(ask).await.unwrap();
        assert_eq!(name, "m1");
        let started = Instant::now();
        lab.power_off("m1").await.unwrap();
        output(&lab, "m2", &hold(2)).await;
        let mut rest = Vec::new();
        tokio::task::block_in_place(|| {
            open.write_all(b"are you there").unwrap();
            drop(reader.read_to_end(&mut rest));
        });
        assert!(started.elapsed() < Duration::from_secs(20), "the client was left hanging");
        let (name, ..) = tokio::task::spawn_blocking(ask).await.unwrap();
        assert_eq!(name, "m2");

        // A relay that dies is started again; the port stays.
        let relay = |p: &Proc| {
            fs::read_to_string(format!("/proc/{}/comm", p.pid)).is_ok_and(|n| n == "icp-lab-relay\n")
        };
        let of_this_lab = |p: &&Proc| relay(p) && listens(p.pid, outside.port());
        for _ in 0..2 {
            let pid =
                eventually_async("a relay", || async { processes().iter().find(of_this_lab).map(|p| p.pid) })
                    .await;
            kill(pid, Signal::KILL);
            let (name, ..) = tokio::task::spawn_blocking(ask).await.unwrap();
            assert_eq!(name, "m2");
        }
    });
}

/// Whether a process has the socket open that listens on `port`.
pub(crate) fn listens(pid: u32, port: u16) -> bool {
    let wanted = format!("socket:[{}]", inode_of(port));
    fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .any(|e| fs::read_link(e.path()).is_ok_and(|l| l.to_string_lossy() == wanted))
}

/// The inode of the loopback socket that listens on `port` (`/proc/net/tcp`).
pub(crate) fn inode_of(port: u16) -> String {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!("0100007F:{port:04X}");
    let line = table.lines().find(|l| l.split_whitespace().nth(1) == Some(&local)).unwrap();
    line.split_whitespace().nth(9).unwrap().to_owned()
}

pub(crate) fn a_busy_port_is_one_clear_line() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let refused = listen(address).unwrap_err();
    assert!(matches!(refused, LabError::Busy { .. }));
    let text = refused.to_string();
    assert!(text.starts_with(&format!("{address} is in use: ")) && !text.contains('\n'), "{text}");
}

//! Machines, processes, power and cables.

use crate::*;

pub(crate) fn probe_leaves_nothing() {
    let before = Traces::now();
    probe().unwrap_or_else(|e| panic!("{e:?}"));
    before.are_all_there_is();
}

pub(crate) fn machines_reach_each_other_and_are_apart() {
    let dir = Dir::new("machines");
    with_lab(three(&dir.0), 3, |lab| async move {
        for n in 1..=3 {
            start_echo(&lab, &format!("m{n}"), 7).await;
        }
        for from in 1..=3 {
            for to in 1..=3 {
                let from = format!("m{from}");
                let name = greeting(&lab, Place::Machine(&from), address(to, 7)).await;
                assert_eq!(name, Some(format!("m{to}")), "from {from}");
            }
            assert_eq!(greeting(&lab, Place::Root, address(from, 7)).await, Some(format!("m{from}")));
        }
        // The route to all else leads to the bridge, which forwards.
        let route = output(&lab, "m1", "cat /proc/net/route | awk '$2 == \"00000000\" {print $1, $3}'").await;
        assert_eq!(route, "eth0 FE004D0A");
        assert_eq!(output(&lab, "m2", "cat /proc/sys/net/ipv4/ip_forward; hostname").await, "1\nm2");
        // Processes, /run and /var/lib/icp are a machine's own.
        output(&lab, "m1", "echo one > /run/mine; echo one > /var/lib/icp/mine").await;
        assert_eq!(output(&lab, "m2", "ls /run /var/lib/icp").await, "/run:\nlock\n\n/var/lib/icp:");
        assert_eq!(fs::read_to_string(lab.machine_dir("m1").join("mine")).unwrap(), "one\n");
        assert!(!Path::new("/run/mine").exists() && !Path::new("/var/lib/icp/mine").exists());
        let names = output(&lab, "m3", "cat /proc/[0-9]*/comm | sort -u").await;
        assert!(names.contains("icp-init") && !names.contains("icp-lab-root"), "{names}");
        assert_eq!(output(&lab, "m3", "cat /proc/1/comm").await, "icp-init");
        // Sockets of a machine, in the host.
        let any = address(1, 0);
        let (one, two) = (
            lab.udp_socket(Place::Machine("m1"), any).await.unwrap(),
            lab.udp_socket(Place::Machine("m2"), address(2, 53)).await.unwrap(),
        );
        one.send_to(b"question", address(2, 53)).await.unwrap();
        let mut bytes = [0; 64];
        let (read, from) = tokio::time::timeout(LIMIT, two.recv_from(&mut bytes)).await.unwrap().unwrap();
        assert_eq!((&bytes[..read], from.ip()), (&b"question"[..], any.ip()));
        let listener = lab.tcp_listen(Place::Machine("m1"), address(1, 80)).await.unwrap();
        let (accepted, connected) =
            tokio::join!(listener.accept(), lab.tcp_connect(Place::Machine("m3"), address(1, 80)));
        assert_eq!(accepted.unwrap().1.ip(), connected.unwrap().local_addr().unwrap().ip());
        let refused = lab.tcp_connect(Place::Machine("m3"), address(1, 81)).await.unwrap_err().to_string();
        assert!(refused.starts_with("connecting to 10.77.0.1:81 from m3: "), "{refused}");
    });
}

pub(crate) fn processes_are_started_killed_and_reaped() {
    let dir = Dir::new("processes");
    with_lab(three(&dir.0), 1, |lab| async move {
        let mut events = lab.events();
        let process = lab.spawn("m1", sh("echo out; echo err >&2; exit 3").named("both")).await.unwrap();
        assert_eq!(process.wait().await, Exit::Code(3));
        assert_eq!(fs::read_to_string(lab.log_path("m1", "both")).unwrap(), "out\nerr\n");
        let event = tokio::time::timeout(LIMIT, events.recv()).await.unwrap().unwrap();
        let expected = LabEvent::Exited { machine: "m1".into(), process: "both".into(), exit: Exit::Code(3) };
        assert_eq!(event, expected);

        let env = sh("echo $ICP_MACHINE $EXTRA; pwd").env("EXTRA", "more").dir("/run");
        assert_eq!(lab.exec("m1", env, LIMIT).await.unwrap().text(), "m1 more\n/run\n");

        // Nothing of the lab's own leaks into a program.
        let clean =
            "ls /proc/self/fd; sed -n 's/Sig\\(Blk\\|Ign\\):.*\\(.\\{7\\}\\)$/\\1 \\2/p' /proc/self/status";
        let expected = "0\n1\n2\n3\nBlk 0000000\nIgn 0000000";
        assert_eq!(output(&lab, "m1", clean).await, expected);
        let held = lab.exec("m1", sh("echo early; sleep 1000 &"), LIMIT).await.unwrap();
        assert_eq!((held.exit, held.text()), (Exit::Code(0), "early\n".into()));
        output(&lab, "m1", "pkill sleep || busybox pkill sleep").await;

        // Killing a process leaves its children alone, and the init reaps them when they end.
        let parent =
            lab.spawn("m1", sh("sleep 1000 & echo $! > /run/child; wait").named("parent")).await.unwrap();
        eventually_async("the child runs", || async {
            lab.exec("m1", sh("cat /run/child"), LIMIT).await.ok()
        })
        .await;
        lab.kill("m1", "parent", Signal::KILL).await.unwrap();
        assert_eq!(parent.wait().await, Exit::Signal(9));
        assert_eq!(output(&lab, "m1", "cat /proc/$(cat /run/child)/stat | cut -d' ' -f4").await, "1");
        output(&lab, "m1", "kill $(cat /run/child)").await;
        assert!(lab.spawn("m1", Spawn::role("orphans")).await.unwrap().wait().await.success());
        let zombies = "cat /proc/[0-9]*/stat 2>/dev/null | awk '$3 == \"Z\"' | wc -l";
        eventually_async("orphans are reaped", || async {
            (output(&lab, "m1", zombies).await == "0").then_some(())
        })
        .await;

        let stubborn = lab.spawn("m1", Spawn::role("stubborn")).await.unwrap();
        let log = stubborn.log().unwrap().to_owned();
        eventually_async("it runs", || async {
            fs::read_to_string(&log).ok().filter(|t| t.contains("ready"))
        })
        .await;
        assert_eq!(stubborn.stop(Duration::from_millis(200)).await.unwrap(), Exit::Signal(9));
        let polite =
            lab.spawn("m1", sh("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done").named("p"));
        let polite = polite.await.unwrap();
        let log = polite.log().unwrap().to_owned();
        eventually_async("it runs", || async {
            fs::read_to_string(&log).ok().filter(|t| t.contains("ready"))
        })
        .await;
        assert_eq!(polite.stop(LIMIT).await.unwrap(), Exit::Code(7));

        let missing = lab.spawn("m1", Spawn::program("/no/such/program")).await.unwrap_err();
        assert_eq!(missing.to_string(), "m1: starting program: No such file or directory (os error 2)");
        let none = lab.spawn("m9", sh("true")).await.unwrap_err();
        assert!(matches!(none, LabError::NoMachine { .. }));
        let slow =
            lab.exec("m1", sh("sleep 1000 & sleep 1000"), Duration::from_millis(200)).await.unwrap_err();
        assert!(matches!(slow, LabError::Timeout { .. }), "{slow}");
        eventually_async("the whole group is killed", || async {
            let left = "cat /proc/[0-9]*/comm 2>/dev/null | grep -c sleep || true";
            (output(&lab, "m1", left).await == "0").then_some(())
        })
        .await;
        let long = lab.exec("m1", sh("yes | head -c 20000000; echo end >&2"), LIMIT).await.unwrap();
        assert_eq!((long.stdout.len(), &long.stderr[..]), (4 << 20, &b"end\n"[..]));

        // Many at once, in order.
        let all = (0..40).map(|n| {
            let lab = lab.clone();
            tokio::spawn(async move { lab.exec("m1", sh(&format!("echo {n}")), LIMIT).await.unwrap().text() })
        });
        for (n, task) in all.collect::<Vec<_>>().into_iter().enumerate() {
            assert_eq!(task.await.unwrap(), format!("{n}\n"));
        }
    });
}

pub(crate) fn power_off_is_silent_and_state_survives() {
    let dir = Dir::new("power");
    with_lab(three(&dir.0), 2, |lab| async move {
        let mut events = lab.events();
        start_echo(&lab, "m1", 7).await;
        assert!(matches!(lab.power_on("m1").await, Err(LabError::On { .. })));
        output(&lab, "m1", "echo kept > /var/lib/icp/file; echo lost > /run/file").await;
        let process = lab.process("m1", "echo").unwrap();
        let mut stream =
            lab.tcp_connect(Place::Machine("m2"), address(1, 7)).await.unwrap().into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut bytes = [0; 3];
        stream.read_exact(&mut bytes).unwrap();

        lab.power_off("m1").await.unwrap();
        assert_eq!(process.exit(), Some(Exit::PowerOff));
        assert_eq!(process.wait().await, Exit::PowerOff);
        assert!(!lab.is_on("m1") && matches!(lab.power_off("m1").await, Err(LabError::Off { .. })));
        assert!(matches!(lab.spawn("m1", sh("true")).await, Err(LabError::Off { .. })));
        assert!(matches!(process.kill(Signal::TERM).await, Err(LabError::Off { .. })));
        // No farewell came: the connection is neither closed nor reset, it is silent.
        let silent = stream.read(&mut bytes).unwrap_err();
        assert_eq!(silent.kind(), std::io::ErrorKind::WouldBlock, "{silent}");

        lab.power_on("m1").await.unwrap();
        assert_eq!(output(&lab, "m1", "cat /var/lib/icp/file; ls /run").await, "kept\nlock");
        assert!(lab.process("m1", "echo").is_none());
        lab.spawn("m1", Spawn::role("echo").arg("7")).await.unwrap();
        let name =
            eventually_async("the server", || greeting(&lab, Place::Machine("m2"), address(1, 7))).await;
        assert_eq!(name, "m1");

        let seen = async {
            loop {
                if let LabEvent::Off { machine } = events.recv().await.unwrap() {
                    return machine;
                }
            }
        };
        assert_eq!(tokio::time::timeout(LIMIT, seen).await.unwrap(), "m1");
        for _ in 0..5 {
            lab.power_off("m2").await.unwrap();
            lab.power_on("m2").await.unwrap();
        }
        // A machine whose init dies is off too, and can be powered on again.
        let mounted = format!("{} /var/lib/icp ", lab.machine_dir("m2").display());
        let is_init = |p: &&Proc| {
            let read = |file| fs::read_to_string(format!("/proc/{}/{file}", p.pid)).unwrap_or_default();
            read("comm") == "icp-init\n" && read("mountinfo").contains(&mounted)
        };
        kill(processes().iter().find(is_init).expect("an init").pid, Signal::KILL);
        eventually_async("m2 is off", || async { (!lab.is_on("m2")).then_some(()) }).await;
        eventually_async("m2 is on", || async { lab.power_on("m2").await.ok() }).await;
        assert_eq!(output(&lab, "m2", "cat /proc/1/comm").await, "icp-init");
    });
}

pub(crate) fn a_pulled_cable_cuts_a_machine_off() {
    let dir = Dir::new("cable");
    with_lab(three(&dir.0), 2, |lab| async move {
        start_echo(&lab, "m1", 7).await;
        lab.set_cable("m1", false).await.unwrap();
        eventually_async("no carrier", || async {
            (output(&lab, "m1", "ip link show eth0").await.contains("NO-CARRIER")).then_some(())
        })
        .await;
        lab.set_cable("m1", true).await.unwrap();
        let name =
            eventually_async("the way back", || greeting(&lab, Place::Machine("m2"), address(1, 7))).await;
        assert_eq!(name, "m1");
        assert!(matches!(lab.set_cable("m3", false).await, Err(LabError::Off { .. })));
    });
}

//! What runs in the machines of the test.

use crate::*;

/// Sends back what comes, on every connection, and says first who it is.
pub(crate) fn echo(args: Vec<String>) -> ExitCode {
    let listener = TcpListener::bind(("0.0.0.0", args[0].parse().unwrap())).unwrap();
    println!("ready");
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        std::thread::spawn(move || {
            let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
            writeln!(stream, "{}", name.trim()).ok()?;
            std::io::copy(&mut stream.try_clone().ok()?, &mut stream).ok()?;
            stream.shutdown(Shutdown::Write).ok()
        });
    }
    ExitCode::SUCCESS
}

/// Leaves children behind that end after it.
pub(crate) fn orphans(_: Vec<String>) -> ExitCode {
    for _ in 0..20 {
        Command::new("sh").args(["-c", "sleep 0.05 & exit 0"]).status().unwrap();
    }
    ExitCode::SUCCESS
}

/// Does not end when it is asked to.
pub(crate) fn stubborn(_: Vec<String>) -> ExitCode {
    let error = Command::new("sh").args(["-c", "trap '' TERM; echo ready; while :; do sleep 1; done"]).exec();
    panic!("{error}")
}

/// Makes a lab where it runs, then forbids it and tries again.
pub(crate) fn nested(_: Vec<String>) -> ExitCode {
    match probe() {
        Ok(()) => println!("works"),
        Err(e) => println!("{e}"),
    }
    if fs::write("/proc/sys/user/max_net_namespaces", "0").is_ok() {
        match probe() {
            Ok(()) => println!("works although it must not"),
            Err(e) => println!("{e}"),
        }
    }
    ExitCode::SUCCESS
}

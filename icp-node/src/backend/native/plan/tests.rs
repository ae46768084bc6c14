use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::caps::SYS_ADMIN;
use super::*;
use crate::backend::native::image::ImageView;
use crate::runtime::{
    ContainerSpec, GeneratedFile, Mount, MountPropagation, MountSource, Network, RuntimeError, SandboxSpec,
    Seccomp,
};

fn root_facts() -> Facts {
    let all = Vec::from([IdRange { first: 0, count: u32::MAX }]);
    Facts {
        uids: all.clone(),
        gids: all,
        setgroups: true,
        overlay: Overlay::Trusted,
        sysfs: true,
        sysfs_host_network: true,
        mqueue: true,
        tty_group: true,
        cgroup_namespace: true,
        caps: ALL_CAPS,
        ..Facts::default()
    }
}

fn plain_facts() -> Facts {
    let one = Vec::from([IdRange { first: 0, count: 1 }]);
    Facts {
        uids: one.clone(),
        gids: one,
        setgroups: false,
        overlay: Overlay::User,
        sysfs: true,
        caps: ALL_CAPS,
        ..Facts::default()
    }
}

fn image() -> ImageView {
    ImageView {
        id: "sha256:1".into(),
        rootfs: Some("/images/1".into()),
        env: Vec::from([("PATH".into(), "/bin".into()), ("COLOUR".into(), "red".into())]),
        entrypoint: Vec::from(["/entry".into()]),
        cmd: Vec::from(["default".into()]),
        working_dir: "/srv".into(),
        ..ImageView::default()
    }
}

fn plan_with(facts: &Facts, image: &ImageView, spec: &ContainerSpec) -> Result<ContainerPlan, RuntimeError> {
    plan_in(facts, &SandboxSpec { hostname: "web-0".into(), ..SandboxSpec::default() }, image, spec)
}

fn plan_in(
    facts: &Facts,
    sandbox: &SandboxSpec,
    image: &ImageView,
    spec: &ContainerSpec,
) -> Result<ContainerPlan, RuntimeError> {
    container_plan(&ContainerInput {
        facts,
        sandbox,
        spec,
        image,
        holder: 42,
        dir: Path::new("/pods/u/containers/c/0"),
        shm: Path::new("/pods/u/shm"),
        volume: &|name| (name != "missing").then(|| PathBuf::from("/volumes").join(name)),
        cgroup_procs: Vec::new(),
        oom_file: None,
        log_max_bytes: 10,
        log_max_files: 5,
    })
}

fn message(result: Result<ContainerPlan, RuntimeError>) -> String {
    match result {
        Err(RuntimeError::Config { message }) => message,
        other => panic!("{other:?}"),
    }
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn commands_merge_with_the_image() {
    // The table of https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/.
    for (command, args, want) in [
        (&[][..], &[][..], &["/entry", "default"][..]),
        (&["/cmd"], &[], &["/cmd"]),
        (&[], &["a"], &["/entry", "a"]),
        (&["/cmd"], &["a"], &["/cmd", "a"]),
    ] {
        let spec = ContainerSpec { command: words(command), args: words(args), ..ContainerSpec::default() };
        assert_eq!(plan_with(&root_facts(), &image(), &spec).unwrap().process.argv, words(want));
    }
    let bare = ImageView { entrypoint: Vec::new(), cmd: Vec::new(), ..image() };
    assert!(message(plan_with(&root_facts(), &bare, &ContainerSpec::default())).contains("no command"));
}

#[test]
fn environments_stand_above_the_image() {
    let env = [("COLOUR", "blue"), ("A", "1"), ("BAD=NAME", "x"), ("A", "2")];
    let env = env.map(|(n, v)| (String::from(n), String::from(v))).to_vec();
    let spec = ContainerSpec { env, tty: true, ..ContainerSpec::default() };
    let plan = plan_with(&root_facts(), &image(), &spec).unwrap();
    let got: Vec<_> = plan.process.env.iter().map(|(n, v)| alloc::format!("{n}={v}")).collect();
    assert_eq!(got, ["PATH=/bin", "HOSTNAME=web-0", "HOME=/", "TERM=xterm", "COLOUR=blue", "A=2"]);
    assert_eq!(plan.process.cwd, "/srv");
}

#[test]
fn ids_that_do_not_exist_are_refused_by_name() {
    let mut spec = ContainerSpec::default();
    let plan = plan_with(&plain_facts(), &image(), &spec).unwrap();
    assert_eq!((plan.process.uid, plan.process.groups), (0, None));
    spec.security.run_as_user = Some(1000);
    let text = message(plan_with(&plain_facts(), &image(), &spec));
    assert!(text.starts_with("securityContext.runAsUser: id 1000"), "{text}");
    assert_eq!(plan_with(&root_facts(), &image(), &spec).unwrap().process.uid, 1000);
    spec.security.run_as_user = None;
    spec.security.supplemental_groups = Vec::from([2000]);
    let text = message(plan_with(&plain_facts(), &image(), &spec));
    assert!(text.starts_with("securityContext.supplementalGroups: id 2000"), "{text}");
    let groups = plan_with(&root_facts(), &image(), &spec).unwrap().process.groups;
    assert_eq!(groups, Some(Vec::from([0, 2000])));
    let user = ImageView { user: "65532:65532".into(), ..image() };
    let text = message(plan_with(&plain_facts(), &user, &ContainerSpec::default()));
    assert!(text.starts_with("user of the image: id 65532"), "{text}");
    let mut spec = ContainerSpec::default();
    spec.security.run_as_non_root = true;
    assert!(message(plan_with(&root_facts(), &image(), &spec)).contains("runAsNonRoot"));
}

#[test]
fn privileges() {
    let mut spec = ContainerSpec::default();
    let plan = plan_with(&root_facts(), &image(), &spec).unwrap();
    assert_eq!(plan.process.caps & SYS_ADMIN, 0);
    assert!(
        plan.masked.iter().any(|p| p == "/proc/kcore") && plan.read_only.iter().any(|p| p == "/proc/sys")
    );
    assert!(plan.root_flags.nodev && !plan.root_flags.read_only && plan.cgroup_namespace);
    let sys = plan.steps.iter().find(|s| s.target == "/sys").unwrap();
    assert!(sys.flags.read_only);
    spec.security.seccomp = Seccomp::RuntimeDefault;
    assert!(plan_with(&root_facts(), &image(), &spec).unwrap().process.seccomp);
    spec.security.privileged = true;
    let plan = plan_with(&root_facts(), &image(), &spec).unwrap();
    assert_eq!(plan.process.caps, ALL_CAPS);
    assert!(plan.masked.is_empty() && plan.read_only.is_empty() && !plan.process.seccomp);
    // What the node does not have it cannot give.
    let less = Facts { caps: ALL_CAPS & !SYS_ADMIN, ..root_facts() };
    assert_eq!(plan_with(&less, &image(), &spec).unwrap().process.caps & SYS_ADMIN, 0);
    spec.security.privileged = false;
    spec.security.seccomp = Seccomp::Localhost("x.json".into());
    assert!(message(plan_with(&root_facts(), &image(), &spec)).contains("seccompProfile"));
    spec.security.seccomp = Seccomp::Unconfined;
    spec.security.cap_add = words(&["FLY"]);
    assert!(message(plan_with(&root_facts(), &image(), &spec)).contains("FLY"));
}

fn mount(path: &str, name: &str, propagation: MountPropagation) -> Mount {
    let source = MountSource::Volume { name: name.into(), sub_path: "a/b".into() };
    Mount { path: path.into(), source, read_only: true, propagation }
}

#[test]
fn volumes_come_last_and_outer_ones_first() {
    let mut spec = ContainerSpec {
        mounts: Vec::from([
            mount("/data/inner/x", "one", MountPropagation::None),
            mount("/data", "two", MountPropagation::HostToContainer),
        ]),
        files: Vec::from([GeneratedFile {
            path: "/etc/hosts".into(),
            data: Bytes::from_static(b"127.0.0.1 localhost\n"),
            mode: 0o644,
        }]),
        termination_message_path: "/dev/termination-log".into(),
        ..ContainerSpec::default()
    };
    let plan = plan_with(&root_facts(), &image(), &spec).unwrap();
    let targets: Vec<_> = plan.steps.iter().rev().take(4).map(|s| s.target.as_str()).collect();
    assert_eq!(targets, ["/data/inner/x", "/data", "/dev/termination-log", "/etc/hosts"]);
    let last = plan.steps.last().unwrap();
    let What::Bind { source, sub_path, propagation, .. } = &last.what else { panic!("{last:?}") };
    assert_eq!((source.as_path(), sub_path.as_str()), (Path::new("/volumes/one"), "a/b"));
    assert_eq!(*propagation, Propagation::Private);
    assert!(last.flags.read_only && last.flags.nodev);
    spec.mounts = Vec::from([mount("/x", "missing", MountPropagation::None)]);
    assert!(message(plan_with(&root_facts(), &image(), &spec)).contains("missing"));
    spec.mounts = Vec::from([mount("/x", "v", MountPropagation::Bidirectional)]);
    assert!(message(plan_with(&root_facts(), &image(), &spec)).contains("privileged"));
}

#[test]
fn what_the_node_cannot_do_is_left_out() {
    let facts = Facts { overlay: Overlay::None, sysfs: false, ..plain_facts() };
    let plan = plan_with(&facts, &image(), &ContainerSpec::default()).unwrap();
    assert!(matches!(&plan.rootfs, Rootfs::Copy { from, .. } if from == Path::new("/images/1")));
    let sys = plan.steps.iter().find(|s| s.target == "/sys").unwrap();
    assert!(matches!(&sys.what, What::Bind { recursive: true, .. }) && sys.flags.read_only);
    let host = SandboxSpec { network: Network::Host, ..SandboxSpec::default() };
    let plan = plan_in(&plain_facts(), &host, &image(), &ContainerSpec::default()).unwrap();
    let sys = plan.steps.iter().find(|s| s.target == "/sys").unwrap();
    assert!(matches!(&sys.what, What::Bind { .. }), "its namespace may belong to somebody else");
    assert!(!plan.steps.iter().any(|s| s.target == "/dev/mqueue") && !plan.cgroup_namespace);
    let overlay = plan_with(&plain_facts(), &image(), &ContainerSpec::default()).unwrap().rootfs;
    assert!(matches!(overlay, Rootfs::Overlay { user: true, .. }));
}

#[test]
fn namespaces_of_the_sandbox() {
    let mut spec = SandboxSpec { hostname: "h".into(), ..SandboxSpec::default() };
    spec.sysctls.insert("net/core/somaxconn".into(), "100".into());
    let plan = sandbox_plan(&spec).unwrap();
    assert!(plan.new_net && plan.new_ipc && plan.new_uts && !plan.new_pid);
    assert_eq!(plan.sysctls, [("net.core.somaxconn".to_string(), "100".to_string())]);
    spec.network = Network::Host;
    let error = sandbox_plan(&spec).unwrap_err();
    assert!(error.to_string().contains("somaxconn"));
    spec.sysctls.clear();
    spec.sysctls.insert("vm.swappiness".into(), "1".into());
    assert!(sandbox_plan(&spec).is_err());
    spec.sysctls.clear();
    let plan = sandbox_plan(&spec).unwrap();
    assert!(!plan.new_net && !plan.new_uts && plan.hostname.is_none());
    let container = plan_in(&root_facts(), &spec, &image(), &ContainerSpec::default()).unwrap();
    assert!(!container.join.net && !container.join.uts && container.join.ipc);
    spec.share_process_namespace = true;
    assert!(sandbox_plan(&spec).unwrap().new_pid);
    let container = plan_in(&root_facts(), &spec, &image(), &ContainerSpec::default()).unwrap();
    assert_eq!(container.pid_mode, PidMode::Pod);
    spec.runtime_handler = "gvisor".into();
    assert!(matches!(sandbox_plan(&spec), Err(RuntimeError::Unsupported { .. })));
}

#[test]
fn plans_survive_the_way_to_the_helper() {
    let spec = ContainerSpec {
        tty: true,
        mounts: Vec::from([mount("/d", "v", MountPropagation::None)]),
        ..ContainerSpec::default()
    };
    let plan = plan_with(&root_facts(), &image(), &spec).unwrap();
    let text = serde_json::to_vec(&plan).unwrap();
    assert_eq!(serde_json::from_slice::<ContainerPlan>(&text).unwrap(), plan);
}

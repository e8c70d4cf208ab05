//! The network: nodes, fabric, clock and queue, and the one loop that lets time pass.

use crate::*;
use std::net::Ipv4Addr;

/// Why [`Net::run_until`] came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunEnd {
    /// The condition holds. The clock stands at the event that made it so.
    Done,
    /// The deadline is reached, and the clock stands there.
    Deadline,
    /// Nothing is queued before or after the deadline; the clock stands at the last event.
    Idle,
}

/// The network.
pub struct Net {}

#[expect(unused_variables, reason = "the API first")]
impl Net {
    /// An empty network whose clock stands at `start_ns`.
    pub fn new(seed: u64, start_ns: u64) -> Self { todo!() }

    // ---- time ----

    /// The clock, nanoseconds.
    pub fn now_ns(&self) -> u64 { todo!() }
    /// Lets the next event happen if it is due at `deadline_ns` or before. False: there was none, and the clock did
    /// not move.
    pub fn step(&mut self, hooks: &mut dyn Hooks, deadline_ns: u64) -> bool { todo!() }
    /// Lets events happen until `done` holds (asked before the first and after each), or the deadline, or none is left.
    pub fn run_until(
        &mut self,
        hooks: &mut dyn Hooks,
        deadline_ns: u64,
        done: &mut dyn FnMut(&Net) -> bool,
    ) -> RunEnd { todo!() }
    /// Lets `duration_ns` pass with all that falls due in it. The clock is advanced by exactly this much.
    pub fn run_for(&mut self, hooks: &mut dyn Hooks, duration_ns: u64) { todo!() }
    /// Lets events happen until no frame is on its way, or the deadline. Timers may be left.
    pub fn run_until_quiet(&mut self, hooks: &mut dyn Hooks, deadline_ns: u64) -> RunEnd { todo!() }
    /// Frames that are on their way: queued, on a link, waiting for a neighbour or for the rest of their fragments.
    pub fn in_flight(&self) -> usize { todo!() }
    /// When the next event is due, if there is any.
    pub fn next_event_ns(&self) -> Option<u64> { todo!() }
    /// Calls [`Hooks::timer`] with `token` at `at_ns` (now, if that is past), in its place among the events.
    pub fn set_timer(&mut self, at_ns: u64, token: u64) -> TimerId { todo!() }
    /// Takes a timer back; false if it is gone already.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool { todo!() }
    /// The network's generator, for what else must be random in the same run.
    pub fn random(&mut self) -> &mut Random { todo!() }

    // ---- nodes, namespaces, devices ----

    /// A node with a root namespace and its `lo` (1).
    pub fn add_node(&mut self, name: &str) -> NodeId { todo!() }
    /// Its name.
    pub fn node_name(&self, node: NodeId) -> Option<&str> { todo!() }
    /// Its root namespace.
    pub fn root(&self, node: NodeId) -> Result<NsId, NetError> { todo!() }
    /// One more namespace on a node. Its loopback is part of its stack and has no number.
    pub fn add_namespace(&mut self, node: NodeId, name: &str) -> Result<NsId, NetError> { todo!() }
    /// Deletes a namespace with its devices (a veth's other end goes too) and its sockets; the root one cannot be.
    pub fn delete_namespace(&mut self, ns: NsId) -> Result<(), NetError> { todo!() }
    /// The node of a namespace.
    pub fn node_of(&self, ns: NsId) -> Option<NodeId> { todo!() }
    /// The name of a namespace; the root one has the empty name.
    pub fn namespace_name(&self, ns: NsId) -> Option<&str> { todo!() }
    /// A network card in the root namespace, at the fabric, up.
    pub fn add_uplink(&mut self, node: NodeId, name: &str, mac: Mac, address: Option<(Ipv4Addr, u8)>, mtu: u32)
        -> Result<IfIndex, NetError> { todo!() }
    /// Two ends of a cable on one node, in two namespaces or in one, both up. The first gets the lower number.
    pub fn add_veth_pair(&mut self, node: NodeId, first: VethEnd, second: VethEnd)
        -> Result<(IfIndex, IfIndex), NetError> { todo!() }
    /// A VXLAN device with collect_md in the root namespace, up. One a port and node.
    pub fn add_vxlan(&mut self, node: NodeId, name: &str, mac: Mac, port: u16, mtu: u32) -> Result<IfIndex, NetError> { todo!() }
    /// Deletes a device with its addresses, routes, neighbours and hooks; of a veth pair both ends.
    pub fn delete_device(&mut self, node: NodeId, ifindex: IfIndex) -> Result<(), NetError> { todo!() }
    /// Sets the hardware address.
    pub fn set_mac(&mut self, node: NodeId, ifindex: IfIndex, mac: Mac) -> Result<(), NetError> { todo!() }
    /// Sets the MTU.
    pub fn set_mtu(&mut self, node: NodeId, ifindex: IfIndex, mtu: u32) -> Result<(), NetError> { todo!() }
    /// Sets the device up or down. Down keeps addresses and routes, and nothing passes.
    pub fn set_up(&mut self, node: NodeId, ifindex: IfIndex, up: bool) -> Result<(), NetError> { todo!() }
    /// A device as it stands.
    pub fn device(&self, node: NodeId, ifindex: IfIndex) -> Option<DeviceInfo> { todo!() }
    /// The device of this name in a namespace.
    pub fn device_by_name(&self, ns: NsId, name: &str) -> Option<IfIndex> { todo!() }
    /// All devices of a node, by number.
    pub fn devices(&self, node: NodeId) -> Vec<DeviceInfo> { todo!() }

    // ---- addresses, routes, neighbours, sysctls ----

    /// Adds an address; the link route of its prefix comes with it (not for /32).
    pub fn add_address(&mut self, node: NodeId, ifindex: IfIndex, address: Ipv4Addr, prefix: u8) -> Result<(), NetError> { todo!() }
    /// Takes an address and its link route away.
    pub fn delete_address(&mut self, node: NodeId, ifindex: IfIndex, address: Ipv4Addr) -> Result<(), NetError> { todo!() }
    /// Adds a route, or replaces the one of the same prefix.
    pub fn set_route(&mut self, ns: NsId, route: Route) -> Result<(), NetError> { todo!() }
    /// Takes the route of exactly this prefix away.
    pub fn delete_route(&mut self, ns: NsId, destination: Ipv4Addr, prefix: u8) -> Result<(), NetError> { todo!() }
    /// The routes, longest prefix first.
    pub fn routes(&self, ns: NsId) -> Vec<Route> { todo!() }
    /// Sets a permanent neighbour.
    pub fn set_neighbour(&mut self, node: NodeId, ifindex: IfIndex, address: Ipv4Addr, mac: Mac) -> Result<(), NetError> { todo!() }
    /// Forgets a neighbour, permanent or learned.
    pub fn delete_neighbour(&mut self, node: NodeId, ifindex: IfIndex, address: Ipv4Addr) -> Result<(), NetError> { todo!() }
    /// The neighbour table.
    pub fn neighbours(&self, ns: NsId) -> Vec<Neighbour> { todo!() }
    /// Sets a sysctl by the kernel's name, with dots or slashes: `net.ipv4.ip_forward`, and of
    /// `net.ipv4.conf.{all,default,DEVICE}.` `rp_filter` (0, 1, 2), `forwarding`, `accept_local`, `proxy_arp`,
    /// `arp_ignore`; an unknown one is an error.
    pub fn set_sysctl(&mut self, ns: NsId, name: &str, value: &str) -> Result<(), NetError> { todo!() }
    /// A sysctl's value.
    pub fn sysctl(&self, ns: NsId, name: &str) -> Result<String, NetError> { todo!() }

    // ---- hooks ----

    /// Attaches, or replaces what is attached (as a tcx link update does: no frame sees neither).
    pub fn attach(&mut self, node: NodeId, ifindex: IfIndex, direction: Direction, hook: HookId) -> Result<(), NetError> { todo!() }
    /// Detaches; an error if nothing is attached.
    pub fn detach(&mut self, node: NodeId, ifindex: IfIndex, direction: Direction) -> Result<(), NetError> { todo!() }
    /// What is attached.
    pub fn attached(&self, node: NodeId, ifindex: IfIndex, direction: Direction) -> Option<HookId> { todo!() }

    // ---- fabric ----

    /// The latency of every link, nanoseconds; 100 us at first.
    pub fn set_latency(&mut self, latency_ns: u64) { todo!() }
    /// The probability with which any frame on the fabric is lost, 0 to 1.
    pub fn set_loss(&mut self, probability: f64) { todo!() }
    /// The same for one direction between two nodes; it comes on top of the common one.
    pub fn set_link_loss(&mut self, from: NodeId, to: NodeId, probability: f64) { todo!() }
    /// The probability with which a frame arrives twice.
    pub fn set_duplication(&mut self, probability: f64) { todo!() }
    /// Cuts (or mends) the link between two nodes, both ways.
    pub fn set_partition(&mut self, a: NodeId, b: NodeId, cut: bool) { todo!() }

    // ---- hosts ----

    /// Gives a namespace sockets. `hostname` seeds its sequence numbers and ports. Its addresses and routes are those
    /// of the namespace: add them as for any other.
    pub fn attach_stack(&mut self, ns: NsId, hostname: &str) -> Result<(), NetError> { todo!() }
    /// The usual pod: `eth0` (made before by [`Net::add_veth_pair`]) gets `address`/32, a link route to `gateway` and
    /// the default route through it, with `mtu` as the path's; and a stack.
    pub fn configure_pod(&mut self, ns: NsId, hostname: &str, address: Ipv4Addr, gateway: Ipv4Addr, mtu: u32)
        -> Result<(), NetError> { todo!() }
    /// An HTTP server in the manner of httpbin: `/get` (JSON), `/bytes/N` (N bytes, the same each time), `/status/N`;
    /// else 404.
    pub fn serve_http(&mut self, ns: NsId, port: u16) -> Result<(), NetError> { todo!() }
    /// A TCP server that sends back what it gets.
    pub fn serve_tcp_echo(&mut self, ns: NsId, port: u16) -> Result<(), NetError> { todo!() }
    /// A UDP server that sends back what it gets.
    pub fn serve_udp_echo(&mut self, ns: NsId, port: u16) -> Result<(), NetError> { todo!() }
    /// Starts an HTTP GET, now.
    pub fn start_http(&mut self, ns: NsId, request: HttpRequest, options: FlowOptions) -> Result<FlowId, NetError> { todo!() }
    /// Starts a TCP connect, now; it is completed by the handshake and closed at once.
    pub fn start_connect(&mut self, ns: NsId, destination: Ipv4Addr, port: u16, options: FlowOptions)
        -> Result<FlowId, NetError> { todo!() }
    /// Sends one datagram, now; completed by an answer.
    pub fn start_udp(&mut self, ns: NsId, destination: Ipv4Addr, port: u16, payload: &[u8], options: FlowOptions)
        -> Result<FlowId, NetError> { todo!() }
    /// Sends `count` echo requests, the first one now; completed by as many replies.
    pub fn start_ping(&mut self, ns: NsId, destination: Ipv4Addr, count: u32, options: FlowOptions)
        -> Result<FlowId, NetError> { todo!() }
    /// How far a flow is.
    pub fn flow(&self, flow: FlowId) -> Option<&FlowState> { todo!() }
    /// Lets a held flow go on, to its end.
    pub fn release(&mut self, flow: FlowId) { todo!() }

    // ---- frames made by hand ----

    /// A frame with its Ethernet header leaves by this device, as if a packet socket wrote it: the egress hook sees
    /// it. From a pod's `eth0` it arrives at the host side of the veth. Any bytes will do.
    pub fn inject(&mut self, node: NodeId, ifindex: IfIndex, frame: &[u8]) -> Result<FrameId, NetError> { todo!() }
    /// A frame arrives at this device, as if its driver received it: the ingress hook sees it.
    pub fn inject_received(&mut self, node: NodeId, ifindex: IfIndex, frame: &[u8]) -> Result<FrameId, NetError> { todo!() }
    /// An IPv4 packet leaves by the namespace's routes and neighbours, as if a raw socket with IP_HDRINCL wrote it;
    /// the source may be forged.
    pub fn send_ip(&mut self, ns: NsId, packet: &[u8]) -> Result<FrameId, NetError> { todo!() }
}

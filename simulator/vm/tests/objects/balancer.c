// SPDX-License-Identifier: GPL-2.0 OR MIT
/* An XDP load balancer in the manner of those that stand before a data centre: a packet for a virtual address goes to
 * a backend, chosen by a ring that many hashes fill, and sticks to it (LRU); it leaves in an IPIP packet, whose
 * source tells flows apart. What it does with a packet:
 *
 *   not IPv4, a fragment, or too short: XDP_PASS, XDP_DROP, XDP_DROP
 *   not for a virtual address: XDP_PASS
 *   no backend in the ring: XDP_DROP
 *   otherwise XDP_TX, 20 bytes longer */
#include "vm.h"

char _license[] SEC("license") = "Dual MIT/GPL";

#define RING 65537

struct vip {
	__be32 address;
	__be16 port;
	__u16 protocol;
};

struct service {
	__u32 number;
	__u32 flags;
};

struct flow {
	__be32 source, destination;
	struct ports ports;
	__u32 protocol;
};

struct backend {
	__be32 address;
	__u32 flags;
};

struct stats {
	__u64 packets, bytes;
};

/* With it the source port is left out of the hash: all flows of a client go to one backend. */
#define BY_CLIENT 1

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 512);
	__type(key, struct vip);
	__type(value, struct service);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1000);
	__type(key, struct flow);
	__type(value, __u32);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4 * RING);
	__type(key, __u32);
	__type(value, __u32);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct backend);
} backends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 512);
	__type(key, __u32);
	__type(value, struct stats);
} stats SEC(".maps");

const volatile __u8 gateway[6] = { 2, 0, 0, 0, 0, 1 };
const volatile __u32 seed = 0x9e3779b9;

inline_always __u32 rotate(__u32 word, int by)
{
	return word << by | word >> (32 - by);
}

/* Jenkins' final mix. */
inline_always __u32 mix(__u32 a, __u32 b, __u32 c)
{
	c ^= b; c -= rotate(b, 14);
	a ^= c; a -= rotate(c, 11);
	b ^= a; b -= rotate(a, 25);
	c ^= b; c -= rotate(b, 16);
	a ^= c; a -= rotate(c, 4);
	b ^= a; b -= rotate(a, 14);
	c ^= b; c -= rotate(b, 24);
	return c;
}

static noinline __u32 ring_slot(struct flow *flow, __u32 by_client)
{
	__u32 ports = by_client ? flow->ports.destination : *(__u32 *)&flow->ports;

	return mix(flow->source + seed, ports, flow->protocol) % RING;
}

inline_always __u16 folded(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

inline_always int encapsulate(struct xdp_md *ctx, struct flow *flow, struct backend *backend, __u16 length)
{
	struct ethernet *old, *new;
	struct ipv4 *outer;
	__u16 *word;
	__u64 sum = 0;
	void *end;

	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(*outer)))
		return XDP_DROP;
	new = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	outer = (void *)(new + 1);
	old = (void *)new + sizeof(*outer);
	if ((void *)(outer + 1) > end || (void *)(old + 1) > end)
		return XDP_DROP;
	__builtin_memcpy(new->source, old->destination, 6);
	for (int i = 0; i < 6; i++)
		new->destination[i] = gateway[i];
	new->protocol = htons(ETHERTYPE_IPV4);
	outer->version_ihl = 0x45;
	outer->tos = 0;
	outer->length = htons(length + sizeof(*outer));
	outer->id = 0;
	outer->fragment = 0;
	outer->ttl = 64;
	outer->protocol = 4;
	outer->checksum = 0;
	/* 172.16 and sixteen bits that tell flows apart for hashing along the way. */
	outer->source = htonl(0xac100000 | (ntohs(flow->ports.source) ^ (ntohl(flow->source) & 0xffff)));
	outer->destination = backend->address;
	word = (void *)outer;
	for (int i = 0; i < 10; i++)
		sum += word[i];
	outer->checksum = folded(sum);
	return XDP_TX;
}

SEC("xdp")
int balancer(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethernet *ethernet = data;
	struct ipv4 *ip = (void *)(ethernet + 1);
	struct ports *ports = (void *)(ip + 1);
	struct service *service;
	struct backend *backend;
	struct stats *counted;
	struct flow flow = {};
	struct vip vip = {};
	__u32 *number, slot, found;
	__u16 length;

	if ((void *)(ethernet + 1) > end || ethernet->protocol != htons(ETHERTYPE_IPV4))
		return XDP_PASS;
	if ((void *)(ip + 1) > end || ip->version_ihl != 0x45)
		return XDP_DROP;
	if (ip->fragment & htons(0x3fff))
		return XDP_DROP;
	if (ip->protocol != 6 && ip->protocol != 17)
		return XDP_PASS;
	if ((void *)(ports + 1) > end)
		return XDP_DROP;
	vip.address = ip->destination;
	vip.port = ports->destination;
	vip.protocol = ip->protocol;
	service = bpf_map_lookup_elem(&services, &vip);
	if (!service)
		return XDP_PASS;
	flow.source = ip->source;
	flow.destination = ip->destination;
	flow.ports = *ports;
	flow.protocol = ip->protocol;
	length = ntohs(ip->length);
	number = bpf_map_lookup_elem(&flows, &flow);
	if (number) {
		found = *number;
	} else {
		slot = service->number * RING + ring_slot(&flow, service->flags & BY_CLIENT);
		number = bpf_map_lookup_elem(&ring, &slot);
		if (!number || !*number)
			return XDP_DROP;
		found = *number;
		bpf_map_update_elem(&flows, &flow, &found, 0);
	}
	backend = bpf_map_lookup_elem(&backends, &found);
	if (!backend || !backend->address)
		return XDP_DROP;
	slot = service->number;
	counted = bpf_map_lookup_elem(&stats, &slot);
	if (counted) {
		counted->packets += 1;
		counted->bytes += length;
	}
	return encapsulate(ctx, &flow, backend, length);
}

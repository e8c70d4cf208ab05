// SPDX-License-Identifier: GPL-2.0 OR MIT
/* A TC policy in the manner of those that guard a workload: the peer's address gives a group (LPM), the group has a
 * table of port rules of its own (map in map), and what was decided is counted on each CPU. Two callbacks walk over
 * maps: one adds the counters of all groups up, one tries rules until one fits.
 *
 * r0: TC_ACT_OK (0) or TC_ACT_SHOT (2). skb->mark becomes the group. */
#include "vm.h"

char _license[] SEC("license") = "Dual MIT/GPL";

struct prefix {
	__u32 length;
	__u8 address[4];
};

struct rule {
	__be16 from, to;
	__u8 protocol;
	__u8 allow;
	__u16 hits;
};

struct counter {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct prefix);
	__type(value, __u32);
} groups SEC(".maps");

struct rules {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct rule);
};

struct rules rules_of_web SEC(".maps"), rules_of_none SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 16);
	__type(key, __u32);
	__array(values, struct rules);
} rules_by_group SEC(".maps") = {
	.values = { [0] = &rules_of_none, [7] = &rules_of_web },
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

/* Set at load. */
const volatile __u32 default_group = 0;
const volatile __u8 ingress = 1;

/* Read and written while it runs. */
__u64 packets_seen = 0;
__u64 last_total = 0;

struct search {
	void *rules;
	__be16 port;
	__u8 protocol;
	__u8 verdict;
};

static long try_rule(__u32 index, struct search *search)
{
	struct rule *rule = bpf_map_lookup_elem(search->rules, &index);
	__u16 port = ntohs(search->port);

	if (!rule || !rule->to)
		return 0;
	if (rule->protocol != search->protocol || port < ntohs(rule->from) || port > ntohs(rule->to))
		return 0;
	__sync_fetch_and_add(&packets_seen, 1);
	search->verdict = rule->allow ? 1 : 2;
	return 1;
}

static long add_up(void *map, __u32 *key, struct counter *counter, __u64 *total)
{
	*total += counter->packets;
	return 0;
}

/* A function with a frame of its own, which is not inlined. */
static noinline int count(__u32 what, __u64 bytes)
{
	struct counter *counter = bpf_map_lookup_elem(&counters, &what);

	if (!counter)
		return -1;
	counter->packets += 1;
	counter->bytes += bytes;
	return 0;
}

SEC("tc")
int policy(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethernet *ethernet = data;
	struct ipv4 *ip = (void *)(ethernet + 1);
	struct prefix key = { .length = 32 };
	struct search search = {};
	__u32 group = default_group, *found;
	__u64 total = 0;
	struct ports *ports;

	if ((void *)(ip + 1) > end || ethernet->protocol != htons(ETHERTYPE_IPV4)) {
		count(3, skb->len);
		return 0;
	}
	ports = (void *)ip + (ip->version_ihl & 15) * 4;
	if ((void *)(ports + 1) > end) {
		count(2, skb->len);
		return 2;
	}
	__builtin_memcpy(key.address, ingress ? &ip->source : &ip->destination, 4);
	found = bpf_map_lookup_elem(&groups, &key);
	if (found)
		group = *found;
	skb->mark = group;
	search.port = ports->destination;
	search.protocol = ip->protocol;
	search.rules = bpf_map_lookup_elem(&rules_by_group, &group);
	if (!search.rules) {
		count(2, skb->len);
		return 2;
	}
	bpf_loop(8, try_rule, &search, 0);
	count(search.verdict == 1 ? 0 : 1, skb->len);
	bpf_for_each_map_elem(&counters, add_up, &total, 0);
	last_total = total;
	return search.verdict == 1 ? 0 : 2;
}

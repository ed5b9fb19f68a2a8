// Package warmpool decides how large a warm pool is: capacity that stands ready, with images and drivers, before the
// pods that will use it exist.
//
// Terms. A replica is one shape of capacity (what one pod requests). The lead time is how long a new node takes from
// being asked for to being warm. Demand is how many replicas' worth of resources the workload asks for. A rise is how
// far demand climbs within one lead time: what a pool must hold, because whatever it orders later comes too late.
//
// Precedence, from weak to strong:
//
//	min, percent, schedule floors, adaptive size, gated pods   the largest of them is wanted
//	max                                                        never more
//	budget                                                     never more than it pays for
//
// So a floor that max or budget does not allow is not reached, and the Decision says so.
//
// The package is pure: no clients, and time comes in as an argument. Start from Config and Sizer.
package warmpool

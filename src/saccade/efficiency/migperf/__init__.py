"""MIGPerf: what a model costs on a device, on a slice of one, and beside others."""

from saccade.efficiency.migperf.exposition import parse_exposition
from saccade.efficiency.migperf.latency import latency_stats, poisson_arrivals, throughput
from saccade.efficiency.migperf.layouts import maximal_layouts
from saccade.efficiency.migperf.profiles import GpuModel

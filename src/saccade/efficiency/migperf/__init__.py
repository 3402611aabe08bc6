"""MIGPerf: what a model costs on a device, on a slice of one, and beside others."""

from saccade.efficiency.migperf.backends import (
    CpuBackend,
    ExporterBackend,
    RecordedBackend,
    SmiBackend,
    record_trace,
)
from saccade.efficiency.migperf.detect import DeviceManager, open_backend
from saccade.efficiency.migperf.exporter import PrometheusExporter, exposition
from saccade.efficiency.migperf.exposition import parse_exposition
from saccade.efficiency.migperf.inventory import Backend, BackendUnavailable, Gpu, GpuLost, MigDevice, Placement, Target
from saccade.efficiency.migperf.jobs import read_jobs, run_jobs
from saccade.efficiency.migperf.latency import Energy, LatencyStats, energy, latency_stats, poisson_arrivals, throughput
from saccade.efficiency.migperf.layouts import Instance, LayoutImpossible, first_fit, maximal_layouts, plan_layout
from saccade.efficiency.migperf.nvml import NvmlBackend
from saccade.efficiency.migperf.partition import Applied, Change, ChangesNotAllowed, PartitionController, mps_running
from saccade.efficiency.migperf.profiles import GPU_MODELS, GpuModel, Profile, gpu_model
from saccade.efficiency.migperf.records import BenchResult, RunRecord, Table, compare, read_record
from saccade.efficiency.migperf.report import write_report
from saccade.efficiency.migperf.runs import benchmark
from saccade.efficiency.migperf.sampler import Sampler
from saccade.efficiency.migperf.sharing import SharingResult, compare_sharing
from saccade.efficiency.migperf.simulated import SimulatedBackend
from saccade.efficiency.migperf.tenants import Jobs, isolated_latency, poisson_jobs, shared_latency
from saccade.efficiency.migperf.workloads import SmallCNN, Workload, workload

__all__ = [
    "GPU_MODELS",
    "Applied",
    "Backend",
    "BackendUnavailable",
    "BenchResult",
    "Change",
    "ChangesNotAllowed",
    "CpuBackend",
    "DeviceManager",
    "Energy",
    "ExporterBackend",
    "Gpu",
    "GpuLost",
    "GpuModel",
    "Instance",
    "Jobs",
    "LatencyStats",
    "LayoutImpossible",
    "MigDevice",
    "NvmlBackend",
    "PartitionController",
    "Placement",
    "Profile",
    "PrometheusExporter",
    "RecordedBackend",
    "RunRecord",
    "Sampler",
    "SharingResult",
    "SimulatedBackend",
    "SmallCNN",
    "SmiBackend",
    "Table",
    "Target",
    "Workload",
    "benchmark",
    "compare",
    "compare_sharing",
    "energy",
    "exposition",
    "first_fit",
    "gpu_model",
    "isolated_latency",
    "latency_stats",
    "maximal_layouts",
    "mps_running",
    "open_backend",
    "parse_exposition",
    "plan_layout",
    "poisson_arrivals",
    "poisson_jobs",
    "read_jobs",
    "read_record",
    "record_trace",
    "run_jobs",
    "shared_latency",
    "throughput",
    "workload",
    "write_report",
]

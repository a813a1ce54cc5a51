"""Kernels that start warm: forked from a process that has imported the large libraries and done nothing else.

Importing TensorFlow and its kind costs a processor some five seconds, and about sixty notebooks are run by the tests. A kernel forked after these imports is as fresh as
one that starts cold: nothing of the kit is loaded, no name is bound, no operation has run, and none of TensorFlow's threads has started, which a fork would lose (they start
with the first operation). What it cannot show is whatever must come before the imports, such as another backend: then start cold. Where there is no fork to be trusted, and
where the environment asks for anything that the imports have read, the kernel starts cold by itself."""
import atexit
import multiprocessing
import os
import runpy
import signal
import sys
import threading
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from multiprocessing import forkserver
from pathlib import Path

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

IMPORTED = ["tensorflow", "keras", "pandas", "scipy.stats", "scipy.optimize", "sklearn.linear_model", "sklearn.manifold", "matplotlib.pyplot", "matplotlib_inline.backend_inline",
            "seaborn", "plotly.graph_objects", "cv2", "ipykernel.kernelapp", "IPython.core.completer"]
READ_AT_IMPORT = ("CUDA_", "KERAS_", "MKL_", "MPL", "OMP_", "OPENBLAS_", "PYTHON", "TF_", "XLA_")  # beginnings of variables
QUICK_GRAPHS = {"disable_meta_optimizer": True}  # a graph runs a few times here: to improve it first takes longer than it saves
LAUNCHER = ["-m", "ipykernel_launcher"]


def read_at_import(environment):
    return {name: value for name, value in environment.items() if name.startswith(READ_AT_IMPORT)}


class Parent:
    """The process from which kernels are forked: started when the first is asked for, with that kernel's environment. It ends with the tests."""
    context, environment = multiprocessing.get_context("forkserver") if sys.platform == "linux" else None, None

    @classmethod
    def serves(cls, environment):
        asked = read_at_import(environment)
        if cls.context is None or not asked.items() >= {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}.items():
            return False                                   # with more threads, NumPy's have started by then
        if cls.environment is None:
            kept = dict(os.environ)
            os.environ.update(asked, MPLBACKEND=asked.get("MPLBACKEND", "module://matplotlib_inline.backend_inline"))  # as ipykernel sets it
            try:
                cls.context.set_forkserver_preload(IMPORTED)
                forkserver.ensure_running()
            finally:
                os.environ.clear()
                os.environ.update(kept)
            cls.environment = asked
        return asked == cls.environment


def become_kernel(arguments, environment, folder):
    """What runs in the forked process: that which `python -m ipykernel_launcher` runs."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    threading.Thread(target=lambda: (multiprocessing.parent_process().join(), os._exit(1)), daemon=True).start()   # if the tests are killed
    multiprocessing.current_process()._config["daemon"] = False                                                      # it may start processes
    sys.modules["numpy"].random.seed()                     # seeded by the import: all would draw the same
    sys.modules["tensorflow"].config.optimizer.set_experimental_options(QUICK_GRAPHS)
    sys.path[:] = [path for path in sys.path if path and Path(path) != Path(__file__).parent]
    sys.argv[:] = ["ipykernel_launcher", *arguments, f"--IPKernelApp.parent_handle={os.getppid()}"]
    try:
        runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()


class Forked:
    """As much of `subprocess.Popen` as jupyter_client uses."""
    stdin = stdout = stderr = None

    def __init__(self, arguments, environment, folder):
        self.process = Parent.context.Process(target=become_kernel, args=(arguments, environment, str(folder)), daemon=True)
        self.process.start()
        self.pid = self.process.pid

    def poll(self):
        return self.process.exitcode

    def wait(self):
        self.process.join()
        return self.process.exitcode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


class WarmProvisioner(LocalProvisioner):
    async def launch_kernel(self, cmd, **kwargs):
        environment = {**kwargs.get("env", os.environ)}
        if LAUNCHER[1] not in cmd or not Parent.serves(environment):
            return await super().launch_kernel(cmd, **kwargs)
        self.cwd = kwargs.get("cwd") or Path.cwd()
        self.process = Forked(cmd[cmd.index(LAUNCHER[1]) + 1:], environment, self.cwd)
        self.pid = self.pgid = self.process.pid
        return self.connection_info


@contextmanager
def kernels():
    """Within, kernels start warm, those of papermill too."""
    factory = KernelProvisionerFactory.instance()
    factory.provisioners["warm"] = EntryPoint("warm", f"{__name__}:WarmProvisioner", factory.GROUP_NAME)
    before, factory.default_provisioner_name = factory.default_provisioner_name, "warm"
    try:
        yield
    finally:
        factory.default_provisioner_name = before

// The extension's entry: importing `llmrec_kernels._C` registers the kernels (each bind.cpp does
// by static initialisation) and starts nothing. build_info() tells what is inside.
#include <Python.h>

#include <algorithm>
#include <exception>
#include <string>

#include "common/device.h"
#include "common/dispatch.h"

#define LLMREC_TEXT(x) #x
#define LLMREC_STRING(x) LLMREC_TEXT(x)

namespace {

// Sets dict[key] to a value that it takes over.
bool put(PyObject* dict, const char* key, PyObject* value) {
  const bool good = value != nullptr && PyDict_SetItemString(dict, key, value) == 0;
  Py_XDECREF(value);
  return good;
}

PyObject* text(const std::string& value) { return PyUnicode_FromString(value.c_str()); }

// What was built for GPUs: None without nvcc.
PyObject* cuda() {
  const llmrec::CudaBuild& build = llmrec::cuda_build();
  if (build.no_device_reason == nullptr) Py_RETURN_NONE;
  PyObject* architectures = PyList_New(0);
  for (int each : build.architectures) {
    PyObject* version = PyUnicode_FromFormat("%d.%d", each / 10, each % 10);
    if (version == nullptr || PyList_Append(architectures, version) != 0) return nullptr;
    Py_DECREF(version);
  }
  return Py_BuildValue(
      "{s:N,s:N}", "version",
      PyUnicode_FromFormat("%d.%d", build.version / 1000, build.version % 1000 / 10),
      "architectures", architectures);
}

PyObject* devices_of(const std::string& op) {
  const std::vector<std::string>& ops = llmrec::cuda_build().ops;
  const bool both = std::find(ops.begin(), ops.end(), op) != ops.end();
  return both ? Py_BuildValue("(ss)", "cpu", "cuda") : Py_BuildValue("(s)", "cpu");
}

bool fill(PyObject* info) {
  PyObject* ops = PyDict_New();
  if (!put(info, "ops", ops)) return false;
  PyObject* levels = PyDict_New();
  if (!put(info, "levels", levels)) return false;
  PyObject* refused = PyDict_New();
  if (!put(info, "refused_levels", refused)) return false;
  for (const llmrec::TableEntry& entry : llmrec::tables()) {
    if (!put(ops, entry.op.c_str(), devices_of(entry.op))) return false;
    const char* level = llmrec::name_of(entry.chosen());
    if (!put(levels, entry.op.c_str(), text(level))) return false;
  }
  for (llmrec::Level level : llmrec::kLevels) {
    const std::string why = llmrec::refusal(level);
    if (!why.empty() && !put(refused, llmrec::name_of(level), text(why))) return false;
  }
  return put(info, "level", text(llmrec::name_of(llmrec::allowed_level()))) &&
         put(info, "cuda", cuda()) && put(info, "compiler", text(__VERSION__)) &&
         put(info, "torch_target", text(LLMREC_STRING(TORCH_TARGET_VERSION)));
}

PyObject* build_info(PyObject*, PyObject*) {
  PyObject* info = PyDict_New();
  try {
    if (info != nullptr && fill(info)) return info;
  } catch (const std::exception& error) {  // LLMREC_ISA names a level that cannot be had
    PyErr_SetString(PyExc_ValueError, error.what());
  }
  Py_XDECREF(info);
  return nullptr;
}

PyObject* cuda_problem(PyObject*, PyObject* device) {
  const auto why = llmrec::cuda_build().no_device_reason;
  if (why == nullptr) return text("the extension was built without CUDA");
  const long index = PyLong_AsLong(device);
  if (index == -1 && PyErr_Occurred() != nullptr) return nullptr;
  return text(why(static_cast<int>(index)));
}

PyMethodDef methods[] = {
    {"build_info", build_info, METH_NOARGS,
     "What the extension was built with, the devices each operator has kernels for, and the\n"
     "instruction set level that each takes here."},
    {"cuda_problem", cuda_problem, METH_O,
     "Why the CUDA kernels cannot run on the GPU of this number; empty where they can."},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_C", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

extern "C" PyMODINIT_FUNC PyInit__C() { return PyModule_Create(&module); }

// The all-reduce of a group of replicas as an XLA custom call, for the CPU and for NVIDIA GPUs.
//
// The first operand and the first result only order the calls of a program: each call takes the
// result of the previous one. Their value is never read.
//
// There is a call for the whole all-reduce, and a pair of calls between which the program computes
// something else. The results of all of them are written over the operands.
#include <utility>

#include "collectives/replica_group.h"
#include "ffi/buffers.h"
#include "ffi/registration.h"

namespace sasa {
namespace {

// Attributes of the custom call.
struct GroupMember {
  int64_t group, replica, program;
  int64_t slot;  // of the pair of calls within the program
};

}  // namespace
}  // namespace sasa

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(sasa::GroupMember, xla::ffi::StructMember<int64_t>("group"),
                                      xla::ffi::StructMember<int64_t>("replica"),
                                      xla::ffi::StructMember<int64_t>("program"),
                                      xla::ffi::StructMember<int64_t>("slot"));

namespace sasa {
namespace {

namespace ffi = xla::ffi;

ffi::ErrorOr<std::vector<ReduceArray>> ReduceArrays(ffi::RemainingArgs inputs,
                                                    ffi::RemainingRets outputs) {
  if (inputs.size() != outputs.size()) {
    return ffi::Unexpected(
        ffi::Error::InvalidArgument("an all-reduce must have one result for each operand"));
  }
  std::vector<ReduceArray> arrays;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const ffi::ErrorOr<Array> input = inputs.get<Array>(i);
    if (!input.has_value()) return ffi::Unexpected(input.error());
    ffi::ErrorOr<ResultArray> output = outputs.get<Array>(i);
    if (!output.has_value()) return ffi::Unexpected(output.error());
    const ffi::ErrorOr<DType> type = DTypeOf(*input);
    if (!type.has_value()) return ffi::Unexpected(type.error());
    arrays.push_back({input->untyped_data(), (*output)->untyped_data(),
                      static_cast<int64_t>(input->element_count()), *type});
  }
  return arrays;
}

enum class Part { kWhole, kStart, kFinish };

// Runs a part of an all-reduce; `done` is called once with success or an error.
template <Part part, typename Done>
void Run(ffi::RemainingArgs inputs, ffi::RemainingRets outputs, const GroupMember& member,
         void* stream, Done done) {
  const std::shared_ptr<ReplicaGroup> group = FindGroup(member.group);
  if (group == nullptr) {
    return done(ffi::Error::Internal("the all-reduce's group of replicas has been closed"));
  }
  ffi::ErrorOr<std::vector<ReduceArray>> arrays = ReduceArrays(inputs, outputs);
  if (!arrays.has_value()) return done(arrays.error());
  const Caller caller = {static_cast<int>(member.replica), member.program};
  const auto finish = [done](const std::string& error) mutable {
    done(error.empty() ? ffi::Error::Success() : ffi::Error::Internal(error));
  };
  switch (part) {
    case Part::kWhole:
      return group->AllReduce(caller, std::move(*arrays), stream, finish);
    case Part::kStart:
      return ReplicaGroup::Done(finish)(
          group->Start(caller, member.slot, std::move(*arrays), stream));
    case Part::kFinish:
      return group->Finish(caller, member.slot, *arrays, stream, finish);
  }
}

// Blocks no thread: a thread of XLA's pool that waited for other replicas could be the one that
// these need.
template <Part part>
ffi::Future OnCpu(Array, ffi::RemainingArgs inputs, ResultArray, ffi::RemainingRets outputs,
                  GroupMember member) {
  ffi::Promise promise;
  ffi::Future future(promise);
  Run<part>(inputs, outputs, member, nullptr, [promise](ffi::Error error) mutable {
    if (error.success()) {
      promise.SetAvailable();
    } else {
      promise.SetError(std::move(error));
    }
  });
  return future;
}

// Enqueued on the stream when this returns.
template <Part part>
ffi::Error OnGpu(Array, ffi::RemainingArgs inputs, ResultArray, ffi::RemainingRets outputs,
                 GroupMember member, void* stream) {
  ffi::Error result = ffi::Error::Success();
  Run<part>(inputs, outputs, member, stream, [&](ffi::Error error) { result = std::move(error); });
  return result;
}

auto Bind() {
  return ffi::Ffi::Bind()
      .Arg<Array>()  // order
      .RemainingArgs()
      .Ret<Array>()  // order
      .RemainingRets()
      .Attrs<GroupMember>();
}

auto BindStream() { return Bind().Ctx<ffi::PlatformStream<void*>>(); }

XLA_FFI_DEFINE_HANDLER(kCpuAllReduce, OnCpu<Part::kWhole>, Bind());
XLA_FFI_DEFINE_HANDLER(kCpuStart, OnCpu<Part::kStart>, Bind());
XLA_FFI_DEFINE_HANDLER(kCpuFinish, OnCpu<Part::kFinish>, Bind());
XLA_FFI_DEFINE_HANDLER(kCudaAllReduce, OnGpu<Part::kWhole>, BindStream());
XLA_FFI_DEFINE_HANDLER(kCudaStart, OnGpu<Part::kStart>, BindStream());
XLA_FFI_DEFINE_HANDLER(kCudaFinish, OnGpu<Part::kFinish>, BindStream());

}  // namespace

void RegisterAllReduce(Registrar& registrar) {
  const auto add = [&](const char* name, XLA_FFI_Handler* cpu, XLA_FFI_Handler* cuda) {
    registrar.RegisterCpu(name, cpu);
    // CUDA graphs must not capture it, because the host counts the calls.
    registrar.RegisterCuda(name, cuda, /*in_cuda_graphs=*/false);
  };
  add("sasa_tf_all_reduce", kCpuAllReduce, kCudaAllReduce);
  add("sasa_tf_all_reduce_start", kCpuStart, kCudaStart);
  add("sasa_tf_all_reduce_finish", kCpuFinish, kCudaFinish);
}

}  // namespace sasa

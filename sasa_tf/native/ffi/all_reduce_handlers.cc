// The all-reduce of a group of replicas as an XLA custom call, for the CPU and for NVIDIA GPUs.
//
// The first operand and the first result only order the calls of a program: each call takes the
// result of the previous one. Their value is never read.
#include <utility>

#include "collectives/replica_group.h"
#include "ffi/buffers.h"
#include "ffi/registration.h"

namespace sasa {
namespace {

// Attributes of the custom call.
struct GroupMember {
  int64_t group, replica;
};

}  // namespace
}  // namespace sasa

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(sasa::GroupMember, xla::ffi::StructMember<int64_t>("group"),
                                      xla::ffi::StructMember<int64_t>("replica"));

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

// Starts an all-reduce; `done` is called once with success or an error.
template <typename Done>
void Start(ffi::RemainingArgs inputs, ffi::RemainingRets outputs, const GroupMember& member,
           void* stream, Done done) {
  const std::shared_ptr<ReplicaGroup> group = FindGroup(member.group);
  if (group == nullptr) {
    return done(ffi::Error::Internal("the all-reduce's group of replicas has been closed"));
  }
  ffi::ErrorOr<std::vector<ReduceArray>> arrays = ReduceArrays(inputs, outputs);
  if (!arrays.has_value()) return done(arrays.error());
  group->AllReduce(static_cast<int>(member.replica), std::move(*arrays), stream,
                   [done](const std::string& error) mutable {
                     done(error.empty() ? ffi::Error::Success() : ffi::Error::Internal(error));
                   });
}

// Blocks no thread: a thread of XLA's pool that waited for other replicas could be the one that
// these need.
ffi::Future CpuAllReduce(Array, ffi::RemainingArgs inputs, ResultArray, ffi::RemainingRets outputs,
                         GroupMember member) {
  ffi::Promise promise;
  ffi::Future future(promise);
  Start(inputs, outputs, member, nullptr, [promise](ffi::Error error) mutable {
    if (error.success()) {
      promise.SetAvailable();
    } else {
      promise.SetError(std::move(error));
    }
  });
  return future;
}

ffi::Error CudaAllReduce(Array, ffi::RemainingArgs inputs, ResultArray, ffi::RemainingRets outputs,
                         GroupMember member, void* stream) {
  ffi::Error result = ffi::Error::Success();
  // Enqueued when this returns.
  Start(inputs, outputs, member, stream, [&](ffi::Error error) { result = std::move(error); });
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

XLA_FFI_DEFINE_HANDLER(kCpuAllReduce, CpuAllReduce, Bind());
XLA_FFI_DEFINE_HANDLER(kCudaAllReduce, CudaAllReduce, Bind().Ctx<ffi::PlatformStream<void*>>());

}  // namespace

void RegisterAllReduce(Registrar& registrar) {
  constexpr char name[] = "sasa_tf_all_reduce";
  registrar.RegisterCpu(name, kCpuAllReduce);
  // CUDA graphs must not capture it, because the host counts the calls.
  registrar.RegisterCuda(name, kCudaAllReduce, /*in_cuda_graphs=*/false);
}

}  // namespace sasa

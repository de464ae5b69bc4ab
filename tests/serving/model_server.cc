// Runs a SavedModel without Python, as model servers do:
//
//   model_server SAVED_MODEL INPUT OUTPUT
//
// feeds two images of 32 x 32 pixels to the operation INPUT, and prints the numbers of the operation
// OUTPUT.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "tensorflow/c/c_api.h"

static void Check(TF_Status* status) {
  if (TF_GetCode(status) == TF_OK) return;
  std::fprintf(stderr, "%s\n", TF_Message(status));
  std::exit(1);
}

int main(int, char** argv) {
  TF_Status* status = TF_NewStatus();
  TF_Graph* graph = TF_NewGraph();
  const char* tag = "serve";
  TF_Session* session = TF_LoadSessionFromSavedModel(TF_NewSessionOptions(), nullptr, argv[1], &tag,
                                                     1, graph, nullptr, status);
  Check(status);
  constexpr int64_t shape[] = {2, 32, 32, 3}, bytes = 2 * 32 * 32 * 3;
  TF_Tensor* images = TF_AllocateTensor(TF_UINT8, shape, 4, bytes);
  auto* pixels = static_cast<uint8_t*>(TF_TensorData(images));
  for (int64_t i = 0; i < bytes; ++i) pixels[i] = static_cast<uint8_t>(i * 37);
  const TF_Output input = {TF_GraphOperationByName(graph, argv[2]), 0};
  const TF_Output output = {TF_GraphOperationByName(graph, argv[3]), 0};
  TF_Tensor* result = nullptr;
  TF_SessionRun(session, nullptr, &input, &images, 1, &output, &result, 1, nullptr, 0, nullptr,
                status);
  Check(status);
  const auto* numbers = static_cast<const float*>(TF_TensorData(result));
  for (size_t i = 0; i < TF_TensorByteSize(result) / sizeof(float); ++i) {
    std::printf("%.9g\n", numbers[i]);
  }
}

package dev.edgecv.core

import java.nio.ByteBuffer

/** What computes: [label] is what people and measurements call it. */
enum class Delegate(val label: String) {
    XNNPACK("XNNPACK"),
    CPU("CPU"),
    GPU("GPU"),
    NNAPI("NNAPI"),
    ;

    /** What to try where this one fails; null where nothing is left. */
    val fallback: Delegate?
        get() = when (this) {
            GPU, NNAPI -> XNNPACK
            XNNPACK -> CPU
            CPU -> null
        }
}

data class Settings(val threads: Int, val delegate: Delegate)

/** Opens models; what TensorFlow Lite is to the app. */
interface Runtime {
    /**
     * @param model the file's bytes in a direct buffer, which must live as long as the engine.
     * @throws DelegateError when the delegate is missing or refuses the model.
     * @throws InputError when the runtime refuses the model.
     */
    fun open(model: ByteBuffer, settings: Settings): Engine
}

/** An open model with one input and one output. Belongs to the thread that opened it. */
interface Engine : AutoCloseable {
    /** Name, version and delegate, such as "tensorflow-lite 2.16.1 XNNPACK". */
    val runtime: String
    val input: Tensor
    val output: Tensor

    /**
     * One inference, between buffers of [Tensor.buffer].
     *
     * @throws DelegateError when the delegate fails.
     */
    fun run(input: ByteBuffer, output: ByteBuffer)
}

package dev.edgecv.core

import java.nio.ByteBuffer

/** An open model with its record: photos in, predictions out. Use it only on the thread that opened it. */
class Classifier private constructor(private val engine: Engine, val record: Record, private val preprocessing: Preprocessing) :
    AutoCloseable by engine {
    val runtime: String get() = engine.runtime
    val outputs: Int get() = engine.output.size
    private val writer = InputWriter(engine.input, preprocessing, record.input.pixelOffset)
    private val cropper = Cropper(preprocessing)
    private val input = engine.input.buffer()
    private val output = engine.output.buffer()

    /**
     * Predicts the classes of a picture.
     *
     * @param readNs the time that it took to read the picture, in nanoseconds; it counts as preprocessing.
     * @param count how many classes to return.
     * @return the predictions, most probable first, and the times of the steps.
     */
    fun classify(picture: Picture, readNs: Long = 0, count: Int = TOP_CLASSES): Pair<List<Prediction>, Timing> {
        val start = System.nanoTime() - readNs
        writer.write(cropper.cropAndResize(picture), input)
        val ready = System.nanoTime()
        engine.run(input, output)
        val ran = System.nanoTime()
        val predictions = predictions(engine.output.values(output), record, count)
        val timing = Timing((ready - start) / 1e6, (ran - ready) / 1e6, (System.nanoTime() - start) / 1e6)
        return predictions to timing
    }

    companion object {
        const val TOP_CLASSES = 5

        /**
         * Opens a model and checks that its tensors match its record.
         *
         * @param content the file's bytes in a direct buffer, which the classifier keeps.
         * @param labels see [ModelSource.labels].
         * @throws InputError with a message for the user.
         */
        fun open(file: String, content: ByteBuffer, sidecar: String?, runtime: Runtime, settings: Settings, labels: String? = null): Classifier {
            val record = Record.read(file, content, sidecar, labels)
            val preprocessing = record.preprocessing
                ?: throw InputError("$file does not declare its preprocessing: it has neither a sidecar nor metadata with a normalization.")
            val engine = runtime.open(content, settings)
            try {
                val shape = engine.input.shape
                if (shape.size != 4 || shape[0] != 1 || (shape[3] != 1 && shape[3] != 3)) {
                    throw InputError("$file must take one image, (1, height, width, 3) or (1, height, width, 1). Received: $shape")
                }
                val declared = listOf(1, preprocessing.height, preprocessing.width, preprocessing.channels)
                if (shape != declared) {
                    throw InputError("$file takes $shape, but its record declares $declared. Use the record of this file.")
                }
                val labels = record.labels
                val single = engine.output.size == 1 // decides between two classes
                if (labels != null && labels.size != engine.output.size && !(single && labels.size == 2)) {
                    throw InputError("$file has ${engine.output.size} outputs, but ${labels.size} labels. Use the labels of this model.")
                }
                return Classifier(engine, record, preprocessing)
            } catch (error: Throwable) {
                engine.close()
                throw error
            }
        }
    }
}

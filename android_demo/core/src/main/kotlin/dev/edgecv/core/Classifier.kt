package dev.edgecv.core

import java.nio.ByteBuffer

/** An open model together with what is known of it: photos in, answers out. Belongs to the thread that opened it. */
class Classifier private constructor(private val engine: Engine, val artifact: Artifact, private val preprocessing: Preprocessing) :
    AutoCloseable by engine {
    val runtime: String get() = engine.runtime
    private val writer = InputWriter(engine.input, preprocessing, artifact.pixelOffset)
    private val input = engine.input.buffer()
    private val output = engine.output.buffer()

    /**
     * A photo's classes, likeliest first, and how long the steps took.
     *
     * @param photo what makes the photo; its time counts as preprocessing.
     */
    fun classify(most: Int = MOST_ANSWERS, photo: () -> Photo): Pair<List<Answer>, Timing> {
        val start = System.nanoTime()
        writer.write(preprocessing.cropAndResize(photo()), input)
        val ready = System.nanoTime()
        engine.run(input, output)
        val ran = System.nanoTime()
        val values = engine.output.values(output)
        val probabilities = if (artifact.logits) softmax(values) else DoubleArray(values.size) { values[it].toDouble() }
        val answers = topK(values, most).map { Answer(it, artifact.labels?.get(it) ?: "class $it", probabilities[it]) }
        val timing = Timing((ready - start) / 1e6, (ran - ready) / 1e6, (System.nanoTime() - start) / 1e6)
        return answers to timing
    }

    companion object {
        const val MOST_ANSWERS = 5

        /**
         * Opens a model and checks that the file and what it says of itself belong together.
         *
         * @param content the file's bytes in a direct buffer, kept as long as the classifier.
         * @throws InputError in words for people.
         */
        fun open(file: String, content: ByteBuffer, sidecar: String?, runtime: Runtime, settings: Settings): Classifier {
            val artifact = Artifact.read(file, content, sidecar)
            val preprocessing = artifact.preprocessing
                ?: throw InputError("$file does not say what its input means: it has neither a sidecar nor metadata with a normalization.")
            val engine = runtime.open(content, settings)
            try {
                val shape = engine.input.shape
                if (shape.size != 4 || shape[0] != 1 || shape[1] != shape[2] || shape[3] != 3) {
                    throw InputError("$file must take one square RGB image, (1, size, size, 3). Received: $shape")
                }
                if (preprocessing.imageSize != shape[1]) {
                    throw InputError("$file takes images of ${shape[1]} pixels, but its record says ${preprocessing.imageSize}: they do not belong together.")
                }
                val labels = artifact.labels
                if (labels != null && labels.size != engine.output.size) {
                    throw InputError("$file has ${engine.output.size} outputs, but ${labels.size} labels: they do not belong together.")
                }
                return Classifier(engine, artifact, preprocessing)
            } catch (error: InputError) {
                engine.close()
                throw error
            }
        }
    }
}

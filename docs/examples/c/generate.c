/* Continues a prompt with a generate graph that the recurrent zoo exported, as `zoo generate` does:
 *     cc -O2 -I ORT/include generate.c -L ORT/lib -lonnxruntime -o generate
 *     ./generate FILE.onnx --prompt "the " --length 200 --temperature 0.8 --seed 7 */
#include <locale.h>
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uchar.h>
#include <wchar.h>
#include <wctype.h>

#define FAIL(code, ...) (fprintf(stderr, "error: " __VA_ARGS__), putc('\n', stderr), exit(code))
#define CALL(function, ...) check(ort->function(__VA_ARGS__))
#define GET(type, name, ...) type name; CALL(__VA_ARGS__, &name)
/* What json.dumps wrote after a key. No string has `"key": ` in it, as its own " become \". */
#define VALUE(json, key) (strstr(json, "\"" key "\": ") + sizeof key + 3)
static const OrtApi *ort;
static OrtAllocator *allocator;
static OrtSession *session;

static void check(OrtStatus *status) {
    const char *message = status ? ort->GetErrorMessage(status) : "";
    if (status) FAIL(1, "%.*s", (int)strcspn(message, "\n"), message);
}

static uint32_t hash(uint32_t word, uint32_t key[2]) {
    word ^= key[0];
    word *= key[0] *= key[1];
    return word ^ word >> 16;
}

/* As numpy.random.default_rng(seed).random(count, numpy.float32): SeedSequence, then PCG64. */
static void draw(uint64_t seed, float *numbers, size_t count) {
    typedef unsigned __int128 Wide;
    uint32_t pool[4] = {seed, seed >> 32};
    uint32_t keys[][2] = {{0x43B0D7E5, 0x931E8875}, {0x8B51F9DD, 0x58F38DED}};
    for (int i = 0; i < 4; i++) pool[i] = hash(pool[i], keys[0]);
    for (int i = 0; i < 16; i++) {
        if (i / 4 == i % 4) continue;
        uint32_t mixed = pool[i % 4] * 0xCA01F9DD - hash(pool[i / 4], keys[0]) * 0x4973F715;
        pool[i % 4] = mixed ^ mixed >> 16;
    }
    Wide made[2] = {0}, factor = (Wide)0x2360ED051FC65DA4 << 64 | 0x4385DF649FCCF645;
    for (int i = 0; i < 8; i++) made[i / 4] |= (Wide)hash(pool[i % 4], keys[1]) << 32 * (i % 4 ^ 2);
    Wide increment = made[1] << 1 | 1, state = (made[0] + increment) * factor + increment;
    for (size_t i = 0; i < count; i++) {
        if (i % 2 == 0) state = state * factor + increment;
        uint64_t mixed = state >> 64 ^ state, turn = state >> 122;
        uint64_t bits = mixed >> turn | mixed << (-turn & 63);
        numbers[i] = (float)(bits >> (i % 2 ? 40 : 8) & 0xFFFFFF) / (1 << 24);
    }
}

static char *string(const char *json) { /* in UTF-8; empty if it is null */
    char *text = calloc(strlen(json) + 1, 1), *end = text;
    if (*json != '"') return text;
    for (unsigned unit; *++json != '"'; end += c16rtomb(end, unit, NULL)) {
        if (sscanf(json, "\\u%4x", &unit) == 1) json += 5;
        else unit = *json == '\\' ? strchr("\"\"\\\\b\bf\fn\nr\rt\t", *++json)[1] : *json;
    }
    return text;
}

/* Makes the tensor of an input, of so many rows. Values are a number that fills it, or base64. */
static void *tensor(OrtValue **made, size_t input, int64_t rows, const char *values) {
    static const uint8_t widths[] = {0, 4, 1, 1, 2, 2, 4, 8, 0, 1, 2, 8, 4, 8}; /* by type */
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    GET(OrtTypeInfo *, info, SessionGetInputTypeInfo, session, input);
    GET(const OrtTensorTypeAndShapeInfo *, about, CastTypeInfoToTensorInfo, info);
    GET(enum ONNXTensorElementDataType, type, GetTensorElementType, about);
    GET(size_t, rank, GetDimensionsCount, about);
    int64_t shape[rank + 1];
    CALL(GetDimensions, about, shape, rank);
    size_t count = 1, width = widths[type];
    for (size_t i = 0; i < rank; i++) count *= shape[i] = shape[i] > 0 ? shape[i] : i ? 1 : rows;
    CALL(CreateTensorAsOrtValue, allocator, shape, rank, type, made);
    GET(void *, data, GetTensorMutableData, *made);
    double number = strtod(values, NULL); /* types 1, 10 and 11 are float, float16 and double */
    void *value = type == 1 ? &(float){number} : type == 10 ? (void *)&(_Float16){number}
                : type == 11 ? (void *)&number : (void *)&(__int128){number};
    for (size_t i = 0; *values != '"' && i < count; i++) memcpy(data + i * width, value, width);
    for (size_t i = 0, k = 1, bits = 0, held = 0; *values == '"' && i < count * width; k++) {
        bits = bits << 6 | (strchr(digits, values[k]) - digits);
        if ((held += 6) >= 8) ((uint8_t *)data)[i++] = bits >> (held -= 8);
    }
    return data;
}

int main(int argc, char **argv) {
    const char *forms[] = {"--temperature %19[0-9.]%c", "--top-k %19[0-9]%c", "--top-p %19[0-9.]%c",
                           "--length %19[0-9]%c", "--seed %19[0-9]%c"}; /* %c: nothing may follow */
    char given[][20] = {"0", "0", "1", "200", "0"}, option[64], rest, *prompt = NULL;
    if (argc < 2 || argc % 2) FAIL(2, "usage: generate FILE.onnx [--prompt TEXT] ...");
    for (int i = 2, n = 0; i < argc; i += 2, n = 0) {
        snprintf(option, sizeof option, "%s %s", argv[i], argv[i + 1]);
        while (n < 5 && sscanf(option, forms[n], given[n], &rest) != 1) n++;
        if (!strcmp(argv[i], "--prompt")) prompt = argv[i + 1];
        else if (n == 5 || !strtod(given[2], NULL)) FAIL(2, "invalid option: %s", option);
    }
    if (!(ort = OrtGetApiBase()->GetApi(ORT_API_VERSION))) FAIL(1, "ONNX Runtime is too old");
    CALL(GetAllocatorWithDefaultOptions, &allocator);
    GET(OrtEnv *, env, CreateEnv, ORT_LOGGING_LEVEL_FATAL, "generate");
    GET(OrtSessionOptions *, options, CreateSessionOptions);
    CALL(SetIntraOpNumThreads, options, 1);
    CALL(CreateSession, env, argv[1], options, &session);
    GET(OrtModelMetadata *, about, SessionGetModelMetadata, session);
    GET(char *, graph, ModelMetadataLookupCustomMetadataMap, about, allocator, "zoo.graph");
    if (!graph || strcmp(graph, "generate")) FAIL(1, "%s is no generate graph", argv[1]);
    GET(char *, tokenizer, ModelMetadataLookupCustomMetadataMap, about, allocator, "zoo.tokenizer");
    GET(char *, training, ModelMetadataLookupCustomMetadataMap, about, allocator, "zoo.training");
    GET(char *, state, ModelMetadataLookupCustomMetadataMap, about, allocator, "zoo.state");

    setlocale(LC_CTYPE, "C.UTF-8");
    const char *kind = string(VALUE(tokenizer, "kind"));
    int bytes = !strcmp(kind, "byte"), letters = !strcmp(kind, "letters"), last = 255;
    if (!bytes && !letters && strcmp(kind, "char")) FAIL(1, "unsupported tokenizer %s", kind);
    static wchar_t vocabulary[0x110001] = {0xFFFD}; /* token 0 is any unknown character */
    if (!bytes) last = mbstowcs(vocabulary + 1, string(VALUE(tokenizer, "characters")), 0x110000);
    if (!prompt) prompt = string(VALUE(training, "prompt"));

    GET(size_t, inputs, SessionGetInputCount, session); /* token, states, uniform, three settings */
    size_t uniform = inputs - 4, outputs = uniform, length = strtoull(given[3], NULL, 10);
    const char *in[inputs], *out[outputs], *left = prompt;
    OrtValue *feeds[inputs], *results[outputs];
    for (size_t i = 0; i < inputs; i++) {
        CALL(SessionGetInputName, session, i, allocator, (char **)&in[i]);
        if (i < outputs) CALL(SessionGetOutputName, session, i, allocator, (char **)&out[i]);
        if (i && i < uniform) tensor(&feeds[i], i, 1, state = VALUE(state, "initial"));
        if (i > uniform) tensor(&feeds[i], i, 1, given[i - uniform - 1]);
    }
    do {
        wchar_t symbol = (uint8_t)*left;
        int size = bytes ? *left != 0 : mbtowc(&symbol, left, MB_CUR_MAX);
        if (size < 1) FAIL(2, "the prompt is empty, or is not UTF-8");
        wchar_t *found = wcschr(vocabulary + 1, letters ? (wchar_t)towlower(symbol) : symbol);
        *(int64_t *)tensor(&feeds[0], 0, 1, "0") = bytes ? symbol : found ? found - vocabulary : 0;
        size_t steps = *(left += size) || !length ? 1 : length; /* the last token is continued */
        draw(strtoull(given[4], NULL, 10), tensor(&feeds[uniform], uniform, steps, "0"), steps);
        memset(results, 0, sizeof results);
        CALL(Run, session, NULL, in, (const OrtValue **)feeds, inputs, out, outputs, results);
        for (size_t i = 0; i <= uniform; i++) ort->ReleaseValue(feeds[i]);
        memcpy(feeds, results, sizeof results);
    } while (*left);
    GET(void *, tokens, GetTensorMutableData, results[0]);
    fputs(prompt, stdout);
    for (int64_t *token = tokens, *end = token + length; token < end && *token <= last; token++)
        printf(bytes ? "%c" : "%lc", bytes ? (int)*token : vocabulary[*token]);
    return putchar('\n') == EOF;
}
